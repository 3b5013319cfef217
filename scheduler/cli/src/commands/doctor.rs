//! `evenkeel doctor`: asks every scheduler and judges what they say. The judging is pure: see [`checks`].

mod checks;

use evenkeel_proto::v1;
use jiff::Timestamp;

use super::Session;
use crate::args::Format;
use crate::client::{Client, ClientError, QUICK};
use crate::exit::{Exit, Failure};
use crate::output;
use crate::view::{CheckResult, Doctor, Host, Status};

pub(super) async fn doctor(session: &mut Session<'_>) -> Result<Exit, Failure> {
    session.only("doctor", &[Format::Table, Format::Json])?;
    let client = session.client()?;
    let seen = look(&client).await?;
    let doctor = Doctor::new(checks::all(&seen));
    session.print(&doctor, output::doctor::doctor, |_| String::new())?;
    Ok(match doctor.result {
        CheckResult::Ok | CheckResult::Warning => Exit::Ok,
        CheckResult::Failed => Exit::Failed,
    })
}

/// Everything that is judged.
async fn look(client: &Client) -> Result<checks::Seen, Failure> {
    let (mut answers, mut silent) = (vec![], vec![]);
    for answer in client.each(QUICK.call, get_status).await? {
        match answer {
            Ok(status) => answers.push(Status::new(status, vec![])),
            Err(no_answer) => silent.push(no_answer),
        }
    }
    if answers.is_empty() {
        return Err(ClientError::Unreachable(silent).into());
    }
    let ask = async |mut scheduler: crate::client::Scheduler| {
        scheduler.list_hosts(v1::ListHostsRequest::default()).await
    };
    let hosts = client.read(QUICK, ask).await?.hosts;
    let ask = async |mut scheduler: crate::client::Scheduler| {
        scheduler.get_policy(v1::GetPolicyRequest {}).await
    };
    let policy = client.read(QUICK, ask).await?;
    Ok(checks::Seen {
        answers,
        silent: silent.iter().map(ToString::to_string).collect(),
        hosts: hosts.into_iter().map(Host::from).collect(),
        policy_revision: policy.revision,
        policy_fault: policy.fault,
        certificate_ends: client.certificate_ends(),
        now: Timestamp::now(),
    })
}

async fn get_status(
    mut scheduler: crate::client::Scheduler,
) -> Result<tonic::Response<v1::Status>, tonic::Status> {
    scheduler.get_status(v1::GetStatusRequest {}).await
}

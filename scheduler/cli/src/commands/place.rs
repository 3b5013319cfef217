//! `place`: the best host for a guest that is to be made.

use evenkeel_planner::{Newcomer, Placement, place_new};

use super::Session;
use super::fleet::{Fleet, snapshot_and_policy};
use crate::args::PlaceArgs;
use crate::exit::{Exit, Failure};
use crate::output;

pub(super) async fn place(session: &mut Session<'_>, args: &PlaceArgs) -> Result<Exit, Failure> {
    let newcomer = newcomer(args)?;
    let fleet = Fleet::open(session, &args.source)?;
    let place = fleet.place().to_owned();
    let (snapshot, policy) = snapshot_and_policy(fleet).await?;
    let placement = place_new(&snapshot, &policy, &newcomer);
    let placement = placement.map_err(|source| Failure::Snapshot {
        file: place,
        source,
    })?;
    session.print(
        &placement,
        output::place::placement,
        |placement: &Placement| placement.host.clone().unwrap_or_default(),
    )?;
    match placement.host {
        Some(_) => Ok(Exit::Ok),
        None => Ok(Exit::Infeasible),
    }
}

fn newcomer(args: &PlaceArgs) -> Result<Newcomer, Failure> {
    let most = f64::from(args.vcpus);
    if let Some(demand) = args.cpu_demand
        && !(0.0..=most).contains(&demand)
    {
        let vcpus = args.vcpus;
        return Err(Failure::Usage(format!(
            "--cpu-demand {demand}: a guest of {vcpus} vCPUs uses from 0 to {vcpus} cores"
        )));
    }
    Ok(Newcomer {
        name: args.name.clone(),
        vcpus: args.vcpus,
        memory_mib: args.memory,
        cpu_demand_cores: args.cpu_demand,
        group: args.group.clone(),
        labels: args.labels.iter().cloned().collect(),
        networks: args.networks.clone(),
        storage: args.storage.clone(),
        cpu_classes: args.cpu_classes.clone(),
    })
}

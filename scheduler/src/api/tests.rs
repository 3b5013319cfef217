//! What callers are told.

use evenkeel_types::Epoch;

use super::*;
use crate::lease::CommitError;

#[test]
fn a_write_whose_outcome_is_not_known_is_never_said_to_have_failed() {
    let timeout = evenkeel_daemon::StoreError::Timeout { operation: "txn" };
    let unknown = [
        WriteError::from(CommitError::Store(timeout)),
        WriteError::NoAnswer(NoAnswer::Late),
        WriteError::Unanswered("agent of h1: no answer".to_owned()),
    ];
    for error in unknown {
        let status = status_of(error);
        assert_eq!(status.code(), Code::DeadlineExceeded, "{status:?}");
    }
    let not_made = [
        WriteError::NotLeader,
        WriteError::from(CommitError::RunOut(Epoch(1))),
        WriteError::from(CommitError::Deposed(Epoch(1))),
        WriteError::NoAnswer(NoAnswer::NotHeard),
    ];
    for error in not_made {
        assert_eq!(status_of(error).code(), Code::Unavailable);
    }
}

#[tokio::test]
async fn a_forwarded_write_is_lost_only_if_it_may_have_been_sent() {
    let code = async |call: Result<Response<()>, Status>| {
        let answer = forwarded(FORWARD_DEADLINE, std::future::ready(call)).await;
        answer.map_or_else(|status| status.code(), |_| Code::Ok)
    };
    let broken = std::io::Error::from(std::io::ErrorKind::BrokenPipe);
    let cut = Status::from_error(Box::new(broken));
    assert_eq!(code(Err(cut)).await, Code::DeadlineExceeded);
    let said = Status::unavailable("this replica does not lead");
    assert_eq!(code(Err(said)).await, Code::Unavailable);
    let refused = Status::failed_precondition("paused");
    assert_eq!(code(Err(refused)).await, Code::FailedPrecondition);
    assert_eq!(code(Ok(Response::new(()))).await, Code::Ok);
    let never = std::future::pending::<Result<Response<()>, Status>>();
    let silence = forwarded(Duration::from_millis(1), never).await;
    assert_eq!(silence.unwrap_err().code(), Code::DeadlineExceeded);
}

#[tokio::test]
async fn a_leader_that_takes_no_connection_has_not_heard_the_write() {
    let endpoint = tonic::transport::Endpoint::from_static("http://127.0.0.1:1");
    let mut leader = SchedulerServiceClient::new(endpoint.connect_lazy());
    let call = leader.resume(v1::ResumeRequest::default());
    let answer = forwarded(FORWARD_DEADLINE, call).await;
    assert_eq!(answer.unwrap_err().code(), Code::Unavailable);
}

#[tokio::test]
async fn a_replica_that_loses_etcd_ends_its_watches() {
    let (_, parts) = crate::controller::tests::parts().await;
    drop(parts.store.get("anything").await); // nobody is there
    let (_changes, mirrored) = mpsc::channel(1);
    let stop = CancellationToken::new();
    let (handle, _running) = crate::controller::start(parts, mirrored, stop.clone());
    let (sink, mut updates) = mpsc::channel(WATCH_QUEUE);
    watch(handle, "7f3a".to_owned(), sink).await;
    let said = updates.recv().await.unwrap().unwrap_err();
    assert_eq!(said.code(), Code::Unavailable);
    assert!(said.message().contains("does not reach etcd"), "{said:?}");
    stop.cancel();
}

#[test]
fn a_reason_is_a_sentence_and_no_book() {
    assert!(bounded(&"ü".repeat(MOST_REASON)).is_ok());
    let refused = bounded(&"ü".repeat(MOST_REASON + 1)).unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert!(refused.message().contains("at most 512"), "{refused:?}");
}

#[tokio::test]
async fn a_plan_keeps_its_turn_when_its_caller_has_left() {
    let turns = Arc::new(Semaphore::new(1));
    let (begun, has_begun) = tokio::sync::oneshot::channel();
    let (end, ended) = std::sync::mpsc::channel::<()>();
    let asked = turns.clone();
    let caller = tokio::spawn(async move {
        in_turn(&asked, move || {
            begun.send(()).unwrap();
            ended.recv()
        })
        .await
    });
    has_begun.await.unwrap();
    caller.abort();
    assert!(caller.await.unwrap_err().is_cancelled());
    assert_eq!(turns.available_permits(), 0, "it is still being made");
    end.send(()).unwrap();
    in_turn(&turns, || ()).await.unwrap();
}

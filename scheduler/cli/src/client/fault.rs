//! Why a scheduler did not do what it was asked: a refusal is an answer, silence is not.

use std::error::Error;
use std::fmt;
use std::io;
use std::time::Duration;

use evenkeel_proto::Code;
use tonic::Status;

use crate::config::Address;
use crate::exit::Exit;

/// How one call of one replica went.
#[derive(Debug)]
pub(super) enum Attempt<T> {
    Answer(T),
    /// It answered no: another replica would say the same.
    Refusal(Status),
    Silence(Silence),
}

/// Why a replica gave no answer.
#[derive(Debug)]
pub enum Silence {
    /// It did not answer in time.
    Late(Duration),
    /// The connection could not be made; the innermost cause.
    Unconnected(String),
    /// The connection broke; the innermost cause.
    Broken(String),
    /// It closed the connection; the reason, if it gave one, did not reach us as such.
    Closed(String),
    /// It answered that it cannot answer now.
    Unable(String),
    /// It answered that it does not know what became of it.
    Unsettled(String),
    /// It does not accept our certificate.
    Unwelcome(String),
}

/// One replica that gave no answer.
#[derive(Debug)]
pub struct NoAnswer {
    /// Which.
    pub address: Address,
    /// Why.
    pub why: Silence,
}

/// Why a request of the schedulers failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The scheduler's answer is no.
    #[error("{}", words(.0))]
    Refused(Status),
    /// No replica gave an answer.
    #[error("no scheduler answers: {}", join(.0))]
    Unreachable(Vec<NoAnswer>),
    /// The scheduler asked for a change says that it cannot, now.
    #[error("{0}")]
    Unable(NoAnswer),
    /// Schedulers answer and tell nothing.
    #[error("the schedulers end every stream without a word")]
    Mute,
    /// A change was sent and no answer came.
    #[error(
        "the answer was lost, so the change may or may not have been made ({0}); see `evenkeel status`"
    )]
    Lost(NoAnswer),
}

impl ClientError {
    /// The exit code it ends in.
    #[must_use]
    pub fn exit(&self) -> Exit {
        let unwelcome = |silent: &NoAnswer| matches!(silent.why, Silence::Unwelcome(_));
        match self {
            Self::Refused(status) => status.code().into(),
            // One replica with another authority is its fault, all of them are ours.
            Self::Unreachable(all) if !all.is_empty() && all.iter().all(unwelcome) => {
                Exit::NotPermitted
            }
            Self::Unreachable(_) | Self::Unable(_) | Self::Mute => Exit::NoLeader,
            Self::Lost(silent) if unwelcome(silent) => Exit::NotPermitted,
            Self::Lost(_) => Exit::Deadline,
        }
    }

    /// Whether asking again a little later may help.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        matches!(self.exit(), Exit::NoLeader | Exit::Deadline)
    }
}

impl<T> Attempt<T> {
    pub(super) fn of(status: Status) -> Self {
        match status.source() {
            // Made on our side: no answer came over the wire.
            Some(cause) => Self::Silence(why_broken(cause)),
            None if status.code() == Code::Unavailable => {
                Self::Silence(Silence::Unable(status.message().to_owned()))
            }
            None => Self::Refusal(status),
        }
    }
}

impl NoAnswer {
    pub(super) fn out_of_time(address: &Address) -> Self {
        Self {
            address: address.clone(),
            why: Silence::Late(Duration::ZERO),
        }
    }
}

impl fmt::Display for NoAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.address)?;
        match &self.why {
            Silence::Late(Duration::ZERO) => write!(f, "not asked, the time was over"),
            Silence::Late(limit) => write!(f, "no answer within {} s", limit.as_secs()),
            Silence::Unconnected(cause)
            | Silence::Broken(cause)
            | Silence::Closed(cause)
            | Silence::Unable(cause)
            | Silence::Unsettled(cause) => f.write_str(cause),
            Silence::Unwelcome(cause) => write!(f, "it does not accept our certificate: {cause}"),
        }
    }
}

fn join(silent: &[NoAnswer]) -> String {
    let parts: Vec<String> = silent.iter().map(ToString::to_string).collect();
    parts.join("; ")
}

fn words(status: &Status) -> String {
    let (code, message) = (status.code(), status.message());
    if message.is_empty() {
        code.description().to_owned()
    } else if matches!(code, Code::PermissionDenied | Code::Unauthenticated) {
        format!("not permitted: {message}")
    } else if code == Code::Unimplemented {
        format!("this scheduler is older and cannot do it: {message}")
    } else {
        message.to_owned()
    }
}

/// The innermost cause says what is wrong; the layers above it say that something is.
fn why_broken(cause: &(dyn Error + 'static)) -> Silence {
    let mut innermost = cause;
    let mut kind = None;
    let mut connecting = false;
    loop {
        connecting |= innermost.is::<tonic::ConnectError>();
        if let Some(rustls::Error::AlertReceived(alert)) = innermost.downcast_ref() {
            return Silence::Unwelcome(format!("TLS alert {alert:?}"));
        }
        let io = innermost.downcast_ref::<io::Error>();
        kind = io.map(io::Error::kind).or(kind);
        // An I/O error is not the source of itself: what it wraps is not in the chain.
        let wrapped: Option<&(dyn Error + 'static)> = match io.and_then(io::Error::get_ref) {
            Some(wrapped) => Some(wrapped),
            None => innermost.source(),
        };
        match wrapped {
            Some(next) => innermost = next,
            None if kind.is_none_or(is_hang_up) => {
                return Silence::Closed(innermost.to_string());
            }
            None if connecting => return Silence::Unconnected(innermost.to_string()),
            None => return Silence::Broken(innermost.to_string()),
        }
    }
}

/// Whether the other side ended a connection that stood. It may have given a reason: HTTP/2 keeps no more of
/// an error than kind and text, and a write that meets a closed connection hides the alert before it.
fn is_hang_up(kind: io::ErrorKind) -> bool {
    matches!(
        kind,
        io::ErrorKind::BrokenPipe
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::InvalidData
            | io::ErrorKind::NotConnected
            | io::ErrorKind::UnexpectedEof
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_whose_answer_was_lost_may_have_been_made() {
        let cut = Status::from_error(Box::new(io::Error::from(io::ErrorKind::ConnectionAborted)));
        let Attempt::Silence(why) = Attempt::<()>::of(cut) else {
            panic!("no answer came");
        };
        let address = "https://s1:7440".parse().unwrap();
        let lost = ClientError::Lost(NoAnswer { address, why });
        assert_eq!(lost.exit(), Exit::Deadline);
    }
}

//! Talking to what listens inside a lab: on a thread that has moved into the router's network namespace.
//!
//! Only the network namespace is entered, so files are those of the machine. Threads that such a thread
//! starts (name resolution, for one) are born in the same namespace.

use std::fs::File;
use std::os::fd::AsFd;
use std::panic::resume_unwind;
use std::path::Path;
use std::time::Duration;

use evenkeel_proto::identity::{TlsFiles, TlsPem};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::Lab;

/// Nothing that is asked takes longer; what is watched is a migration.
const LONGEST: Duration = Duration::from_secs(120);

/// Who calls: the certificate of that role and name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Caller {
    /// `operator/lab`
    Operator,
    /// `viewer/guest`
    Viewer,
    /// `agent/<host>`
    Agent(&'static str),
    /// `scheduler/<name>`
    Scheduler(&'static str),
}

impl Caller {
    fn file_name(self) -> String {
        match self {
            Self::Operator => "operator-lab".to_owned(),
            Self::Viewer => "viewer-guest".to_owned(),
            Self::Agent(host) => format!("agent-{host}"),
            Self::Scheduler(name) => format!("scheduler-{name}"),
        }
    }
}

impl Lab {
    /// Runs `work` to its end inside the lab's network.
    pub fn inside<T, F>(&self, work: impl FnOnce() -> F + Send) -> T
    where
        T: Send,
        F: Future<Output = T>,
    {
        let namespace = format!("/run/netns/{}-rt", self.id());
        let run = move || {
            let there = File::open(&namespace).expect("the router's network namespace");
            move_into_link_name_space(there.as_fd(), Some(LinkNameSpaceType::Network))
                .expect("enter the router's network namespace");
            tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime")
                .block_on(async { tokio::time::timeout(LONGEST, work()).await })
                .expect("an end to what was asked inside the lab's network")
        };
        std::thread::scope(|scope| match scope.spawn(run).join() {
            Ok(value) => value,
            Err(panic) => resume_unwind(panic),
        })
    }

    /// The body that `http://address/path` answers with, plainly.
    #[must_use]
    pub fn http_get(&self, address: &str, path: &str) -> String {
        let request = format!("GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n");
        let answer = self.inside(|| async {
            let mut stream = TcpStream::connect(address).await.expect("a listener");
            let mut answer = vec![];
            stream.write_all(request.as_bytes()).await.expect("asking");
            stream.read_to_end(&mut answer).await.expect("an answer");
            String::from_utf8_lossy(&answer).into_owned()
        });
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
        assert!(head.contains(" 200 "), "{address}{path}: {head}");
        body.to_owned()
    }

    /// The certificate, key and authority of `caller`.
    #[must_use]
    pub fn identity(&self, caller: Caller) -> TlsPem {
        self.tls(&caller.file_name(), "ca")
    }

    /// The certificate called `name` among the lab's, with an authority of choice.
    #[must_use]
    pub fn tls(&self, name: &str, authority: &str) -> TlsPem {
        let certificates = self.path(Path::new("certs"));
        let files = TlsFiles {
            ca: certificates.join(format!("{authority}.pem")),
            certificate: certificates.join(format!("{name}.pem")),
            key: certificates.join(format!("{name}.key")),
        };
        files.read().expect("the lab's certificates")
    }
}

//! A place to run the binary in: certificates, a configuration file and schedulers to talk to.

use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::Once;
use std::time::Duration;

use evenkeel_proto::identity::TlsPem;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, SanType};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::fake::Fake;

pub(crate) struct World {
    pub(crate) folder: TempDir,
    pub(crate) fake: Fake,
    pub(crate) port: u16,
    runtime: Runtime,
    authority: Authority,
}

/// What a run left behind.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Run {
    /// The output of a run that must have gone well.
    pub(crate) fn ok(self) -> String {
        assert_eq!(self.code, 0, "{self:?}");
        self.out
    }

    /// The output as JSON of the schema.
    pub(crate) fn json(self, schema: &str) -> serde_json::Value {
        let value: serde_json::Value = serde_json::from_str(&self.out).expect(&self.out);
        assert_eq!(value["schema"], schema);
        value
    }

    /// Checks the exit code and a part of what was said.
    pub(crate) fn fails(self, code: i32, part: &str) -> Self {
        assert_eq!(self.code, code, "{self:?}");
        assert!(self.err.contains(part), "{part:?} is not in {}", self.err);
        self
    }
}

/// Signs certificates.
pub(crate) struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).unwrap().pem();
        Self {
            pem,
            issuer: Issuer::new(params, key),
        }
    }

    /// A certificate for an identity such as `operator/alice`, and for these addresses.
    pub(crate) fn sign(&self, identity: &str, addresses: &[&str]) -> TlsPem {
        let names: Vec<String> = addresses.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        let uri = format!("evenkeel://{identity}");
        params
            .subject_alt_names
            .push(SanType::URI(uri.as_str().try_into().unwrap()));
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        TlsPem {
            ca: self.pem.clone().into(),
            certificate: certificate.pem().into(),
            key: key.serialize_pem().into(),
        }
    }
}

static PROVIDER: Once = Once::new();

impl World {
    /// A recorded fleet behind one scheduler, and an operator called alice.
    pub(crate) fn new() -> Self {
        PROVIDER.call_once(|| {
            rustls::crypto::ring::default_provider()
                .install_default()
                .unwrap()
        });
        let runtime = Runtime::new().unwrap();
        let authority = Authority::new();
        let fake = Fake::recorded();
        let port = fake.serve(
            &runtime,
            &authority.sign("scheduler/s2", &["127.0.0.1", "localhost"]),
        );
        let folder = tempfile::tempdir().unwrap();
        let world = Self {
            folder,
            fake,
            port,
            runtime,
            authority,
        };
        world.become_("operator/alice");
        world.configure(&[&format!("https://127.0.0.1:{port}")]);
        world
    }

    /// Shows another certificate from now on.
    pub(crate) fn become_(&self, identity: &str) {
        self.show(&self.authority.sign(identity, &[]));
    }

    /// Shows a certificate of an authority that the schedulers do not know.
    pub(crate) fn become_a_stranger(&self) {
        let mut pem = Authority::new().sign("operator/mallory", &[]);
        pem.ca = self.authority.pem.clone().into();
        self.show(&pem);
    }

    /// Trusts another authority than that of the schedulers.
    pub(crate) fn trust_somebody_else(&self) {
        std::fs::write(self.path("ca.pem"), Authority::new().pem).unwrap();
    }

    fn show(&self, pem: &TlsPem) {
        std::fs::write(self.path("ca.pem"), &pem.ca).unwrap();
        std::fs::write(self.path("me.pem"), &pem.certificate).unwrap();
        std::fs::write(self.path("me.key"), &pem.key).unwrap();
    }

    /// Writes the configuration file.
    pub(crate) fn configure(&self, schedulers: &[&str]) {
        let text = format!(
            "schedulers = {schedulers:?}\n[tls]\nca = \"ca.pem\"\ncertificate = \"me.pem\"\n\
             key = \"me.key\"\n"
        );
        std::fs::write(self.path("evenkeel.toml"), text).unwrap();
    }

    /// Another scheduler of the same fleet; returns its address.
    pub(crate) fn another(&self, fake: &Fake, names: &[&str]) -> String {
        let port = fake.serve(&self.runtime, &self.authority.sign("scheduler/s3", names));
        format!("https://127.0.0.1:{port}")
    }

    /// A file of the given text in the world's folder.
    pub(crate) fn file(&self, name: &str, text: &str) -> PathBuf {
        std::fs::write(self.path(name), text).unwrap();
        self.path(name)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Runs the binary to its end.
    pub(crate) fn run(&self, args: &[&str]) -> Run {
        run_in(self.folder.path(), Some(&self.path("evenkeel.toml")), args)
    }

    /// Starts the binary with its output in pipes; it lives a minute at most.
    pub(crate) fn spawn(&self, args: &[&str]) -> Child {
        let mut command = std::process::Command::new("timeout");
        command.args(["-s", "KILL", "60"]).arg(binary());
        command
            .env("EVENKEEL_CONFIG", self.path("evenkeel.toml"))
            .args(args);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command.spawn().unwrap()
    }
}

/// The binary under test.
pub(crate) fn binary() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_evenkeel"))
}

/// Runs the binary to its end, in a folder that is also the home directory.
pub(crate) fn run_in(folder: &Path, config: Option<&Path>, args: &[&str]) -> Run {
    let mut command = assert_cmd::Command::new(binary());
    command.env_clear().env("HOME", folder).current_dir(folder);
    if let Some(config) = config {
        command.env("EVENKEEL_CONFIG", config);
    }
    let output = command
        .args(args)
        .timeout(Duration::from_secs(60))
        .output()
        .unwrap();
    Run {
        code: output.status.code().expect("ended by a signal"),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

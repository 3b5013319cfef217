use super::*;

const LEAST: &str = r#"
cluster = "lab"
[etcd]
endpoints = ["https://10.90.0.1:2379"]
[tls]
ca = "ca.pem"
certificate = "a.pem"
key = "a.key"
"#;

fn load(text: &str) -> Result<Config, String> {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("agent.toml");
    std::fs::write(&file, text).unwrap();
    let args = ConfigArgs {
        config: file,
        set: vec![],
        check_config: false,
        print_config: false,
    };
    Config::load(&args)
        .map(|(config, _)| config)
        .map_err(|fault| fault.to_string())
}

#[test]
fn little_is_needed_and_the_rest_has_defaults() {
    let config = load(&format!("host = \"kvm1\"\n{LEAST}")).unwrap();
    assert_eq!(config.listen.advertise, "kvm1:7441");
    assert_eq!(config.libvirt.peer_uri, "qemu+tls://kvm1/system");
    assert_eq!(
        config.libvirt.qemu_conf,
        PathBuf::from("/etc/libvirt/qemu.conf")
    );
    assert_eq!(config.report.interval, Duration::from_secs(1));
    assert_eq!(config.report.lease_ttl, Duration::from_secs(15));
    assert_eq!(config.max_migrations, 4);
}

#[test]
fn what_is_written_is_taken() {
    let config = load(&format!(
        "host = \"h1\"\nstate_dir = \"/s\"\n{LEAST}
[listen]
grpc = \"10.90.0.11:7441\"
metrics = \"10.90.0.11:9641\"
[libvirt]
migration_uri = \"tcp://10.90.1.11\"
qemu_conf = \"/etc/evenkeel/qemu.conf\"
[capacity]
cpu_cores = 0.5
memory_mib = 512
[sources]
proc = \"/p\"
[report]
interval = \"500ms\"
[metrics]
domains = false
[labels]
rack = \"r1\""
    ))
    .unwrap();
    assert_eq!(config.listen.advertise, "10.90.0.11:7441");
    assert_eq!(config.capacity.cpu_cores, Some(0.5));
    assert!(config.libvirt.qemu_conf.ends_with("evenkeel/qemu.conf"));
    assert_eq!(config.report.interval, Duration::from_millis(500));
    assert!(!config.domain_metrics);
    assert_eq!(config.labels["rack"], "r1");
}

#[test]
fn a_value_out_of_range_is_refused_with_its_place_and_what_would_be_right() {
    let cases = [
        ("[report]\ninterval = \"1ms\"", "report.interval"),
        ("[report]\nheartbeat = \"100ms\"", "report.heartbeat"),
        ("[report]\nwindow = 0", "report.window"),
        ("[capacity]\ncpu_cores = -1.0", "capacity.cpu_cores"),
        ("[capacity]\ncpu_cores = nan", "capacity.cpu_cores"),
        ("[capacity]\nmemory_mib = 0", "capacity.memory_mib"),
        (
            "[migrations]\nmax_concurrent = 99",
            "migrations.max_concurrent",
        ),
    ];
    for (extra, key) in cases {
        let fault = load(&format!("host = \"h1\"{LEAST}{extra}")).unwrap_err();
        assert!(fault.contains("agent.toml:10:1: "), "{fault}");
        assert!(fault.contains(key) && fault.contains("expected"), "{fault}");
    }
}

#[test]
fn an_unknown_key_is_refused() {
    let fault = load(&format!("{LEAST}[libvrt]\nuri = \"x\"")).unwrap_err();
    assert!(fault.contains("libvrt"), "{fault}");
}

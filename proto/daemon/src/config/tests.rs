//! Where faults are found, and which layer wins.

use super::*;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Sample {
    cluster: String,
    listen: Listen,
    #[serde(default)]
    every: Option<Span>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Listen {
    grpc: std::net::SocketAddr,
    #[serde(default)]
    backlog: u32,
}

const GOOD: &str = "cluster = \"lab\"\n[listen]\ngrpc = \"127.0.0.1:1\"\n";

fn load_text(
    text: &str,
    drop_in: Option<&str>,
    variables: &[(&str, &str)],
    sets: &[&str],
) -> Result<Loaded<Sample>, ConfigError> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("agent.toml");
    std::fs::write(&file, text).unwrap();
    if let Some(text) = drop_in {
        let folder = folder.path().join("agent.toml.d");
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(folder.join("10-site.toml"), text).unwrap();
        std::fs::write(folder.join("README"), "not toml").unwrap();
    }
    let variables = variables
        .iter()
        .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
    let sets: Vec<String> = sets.iter().map(|s| (*s).to_owned()).collect();
    load_from(&file, variables, &sets)
}

/// The fault's text with the folder's name cut off.
fn fault(text: &str) -> String {
    let error = load_text(text, None, &[], &[]).unwrap_err().to_string();
    error[error.find("agent.toml").unwrap_or(0)..].to_owned()
}

#[test]
fn flags_beat_variables_beat_drop_ins_beat_the_file() {
    let grpc = |loaded: Loaded<Sample>| loaded.value.listen.grpc.port();
    let drop_in = Some("[listen]\ngrpc = \"127.0.0.1:2\"\n");
    let variables = [("EVENKEEL_LISTEN__GRPC", "127.0.0.1:3")];
    let sets = ["listen.grpc=127.0.0.1:4"];
    assert_eq!(grpc(load_text(GOOD, None, &[], &[]).unwrap()), 1);
    assert_eq!(grpc(load_text(GOOD, drop_in, &[], &[]).unwrap()), 2);
    assert_eq!(grpc(load_text(GOOD, drop_in, &variables, &[]).unwrap()), 3);
    assert_eq!(
        grpc(load_text(GOOD, drop_in, &variables, &sets).unwrap()),
        4
    );
}

#[test]
fn values_of_the_environment_are_typed() {
    let loaded = load_text(GOOD, None, &[("EVENKEEL_LISTEN__BACKLOG", "17")], &[]).unwrap();
    assert_eq!(loaded.value.listen.backlog, 17);
    assert_eq!(loaded.value.cluster, "lab");
    assert_eq!(loaded.value.every, None);
}

#[test]
fn broken_syntax_names_line_and_column() {
    let text = fault("cluster = \"lab\"\n[listen\n");
    assert!(text.starts_with("agent.toml:2:8: "), "{text}");
}

#[test]
fn a_wrong_type_names_its_key_and_place() {
    let text = fault("cluster = \"lab\"\n[listen]\ngrpc = \"127.0.0.1:1\"\nbacklog = \"many\"\n");
    assert!(
        text.starts_with("agent.toml:4:1: listen.backlog: "),
        "{text}"
    );
    assert!(text.contains("4 | backlog = \"many\"\n    | ^"), "{text}");
}

#[test]
fn an_unknown_key_names_what_would_be_right() {
    let text = fault("cluster = \"lab\"\n[listen]\ngrcp = \"127.0.0.1:1\"\n");
    assert!(text.starts_with("agent.toml:3:1: "), "{text}");
    assert!(text.contains("expected `grpc` or `backlog`"), "{text}");
}

#[test]
fn a_missing_key_is_named() {
    assert!(fault("cluster = \"lab\"\n").contains("missing field `listen`"));
}

#[test]
fn a_bad_variable_or_flag_is_named() {
    let error = load_text(GOOD, None, &[("EVENKEEL_LISTEN__BACKLOG", "x")], &[]).unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("environment variable EVENKEEL_LISTEN__BACKLOG: ")
    );
    let error = load_text(GOOD, None, &[], &["listen.backlog=x"]).unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("flag --set listen.backlog=x: "),
        "{error}"
    );
    let error = load_text(GOOD, None, &[], &["nonsense"]).unwrap_err();
    assert!(error.to_string().contains("expected KEY=VALUE"), "{error}");
}

#[test]
fn a_fault_found_later_still_has_its_place() {
    let loaded = load_text(GOOD, None, &[], &[]).unwrap();
    let error = loaded
        .fault("listen.grpc", "must not be a loopback address")
        .to_string();
    assert!(
        error.contains("agent.toml:3:1: listen.grpc: must not be"),
        "{error}"
    );
}

#[test]
fn the_description_tells_each_origin() {
    let loaded = load_text(GOOD, None, &[("EVENKEEL_CLUSTER", "blue")], &[]).unwrap();
    let text = loaded.describe();
    assert!(
        text.contains("cluster = \"blue\"  # environment variable EVENKEEL_CLUSTER"),
        "{text}"
    );
    assert!(
        text.contains("listen.grpc = \"127.0.0.1:1\"  # /"),
        "{text}"
    );
}

#[test]
fn durations_need_a_unit_and_do_not_overflow() {
    assert_eq!("30s".parse::<Span>().unwrap().0, Duration::from_secs(30));
    assert_eq!("2h".parse::<Span>().unwrap().0, Duration::from_secs(7200));
    for bad in [
        "30",
        "s",
        "-1s",
        "1.5s",
        "1w",
        "99999999999999999999s",
        "999999999999999999d",
    ] {
        assert!(bad.parse::<Span>().is_err(), "{bad}");
    }
}

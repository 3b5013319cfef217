use super::*;

const GOOD: &str = r#"schedulers = ["https://10.90.0.2:7440", "s2"]
[tls]
ca = "ca.pem"
certificate = "/x/me.pem"
key = "/x/me.key"
"#;

fn faults(text: &str) -> String {
    match reader::read("evenkeel.toml", text) {
        Ok(config) => panic!("accepted: {config:?}"),
        Err(faults) => ConfigError::Wrong(faults).to_string(),
    }
}

#[test]
fn a_sound_file_is_taken() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("evenkeel.toml");
    std::fs::write(&path, GOOD).unwrap();
    let config = Config::read(&path).unwrap();
    let shown: Vec<String> = config
        .schedulers
        .iter()
        .map(|s| s.address.to_string())
        .collect();
    assert_eq!(shown, ["10.90.0.2:7440", "s2:7440"]);
    assert_eq!(config.schedulers[0].server_name, "10.90.0.2");
    assert_eq!(config.tls.ca, folder.path().join("ca.pem"));
    assert_eq!(config.tls.key, Path::new("/x/me.key"));
}

#[test]
fn addresses_are_hosts_with_a_port() {
    let cases = [
        ("https://s1:7440", Some(("s1", "s1:7440"))),
        ("s1", Some(("s1", "s1:7440"))),
        ("https://[fd00::1]:99/", Some(("fd00::1", "[fd00::1]:99"))),
        ("[fd00::1]", Some(("fd00::1", "[fd00::1]:7440"))),
        ("http://s1:7440", None),
        ("s1:port", None),
        ("s1:70000", None),
        ("", None),
        ("[fd00::1", None),
        ("[s1]:1", None),
        ("a b", None),
    ];
    for (text, expected) in cases {
        let parsed = text.parse::<Address>().ok();
        let seen = parsed
            .as_ref()
            .map(|a| (a.host().to_owned(), a.to_string()));
        let expected = expected.map(|(h, a)| (h.to_owned(), a.to_owned()));
        assert_eq!(seen, expected, "{text}");
    }
}

#[test]
fn an_unknown_key_gets_a_suggestion_and_a_caret() {
    insta::assert_snapshot!(faults(&GOOD.replace("schedulers", "schedulrs")), @r#"
    evenkeel.toml:1:1: unknown key "schedulrs": did you mean "schedulers"?
      1 | schedulrs = ["https://10.90.0.2:7440", "s2"]
        | ^^^^^^^^^
    evenkeel.toml:1:1: schedulers is missing: expected a list such as ["https://scheduler-1:7440"]
      1 | schedulrs = ["https://10.90.0.2:7440", "s2"]
        | ^
    "#);
    insta::assert_snapshot!(faults(&format!("{GOOD}colour = 1\n")), @r#"
    evenkeel.toml:6:1: unknown key "colour": expected ca, certificate, key
      6 | colour = 1
        | ^^^^^^
    "#);
}

#[test]
fn every_fault_is_told_at_once() {
    insta::assert_snapshot!(faults("schedulers = [\"ftp://x\", 7]\nserver_names = \"a\"\n[tls]\nca = 1\n"), @r#"
    evenkeel.toml:1:26: schedulers: expected a string in quotes
      1 | schedulers = ["ftp://x", 7]
        |                          ^
    evenkeel.toml:2:16: server_names: expected a list of strings
      2 | server_names = "a"
        |                ^^^
    evenkeel.toml:4:6: ca: expected a string in quotes
      4 | ca = 1
        |      ^
    evenkeel.toml:3:1: tls.certificate is missing: expected the path of a PEM file
      3 | [tls]
        | ^^^^^
    evenkeel.toml:3:1: tls.key is missing: expected the path of a PEM file
      3 | [tls]
        | ^^^^^
    "#);
}

#[test]
fn a_bad_address_and_too_few_names_are_placed() {
    let text = GOOD.replace("[tls]", "server_names = [\"a\"]\n[tls]");
    assert!(faults(&text).starts_with("evenkeel.toml:2:16: server_names has 1 names for 2"));
    let text = GOOD.replace("https://10.90.0.2:7440", "http://x");
    assert!(faults(&text).contains("expected https://HOST:PORT"));
    assert!(faults("schedulers = []\n").contains("at least one address"));
}

#[test]
fn broken_toml_is_placed() {
    assert!(faults("schedulers = [\n[tls\n").starts_with("evenkeel.toml:"));
}

#[test]
fn the_home_directory_comes_before_the_system() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join(".config/evenkeel.toml");
    let missing = locate(None, Some(home.path()));
    if !Path::new(SYSTEM_FILE).exists() {
        assert!(matches!(missing, Err(ConfigError::Missing { .. })));
    }
    std::fs::create_dir_all(file.parent().unwrap()).unwrap();
    std::fs::write(&file, "").unwrap();
    assert_eq!(locate(None, Some(home.path())).unwrap(), file);
    let named = Path::new("/named.toml");
    assert_eq!(locate(Some(named), Some(home.path())).unwrap(), named);
}

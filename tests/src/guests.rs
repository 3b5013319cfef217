//! Guests: adding and loading them, and their heartbeats, which tell what really happened to them.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::Value;

use crate::{Lab, until, wait_for};

/// A guest boots in less, also on a busy machine.
const BOOT: Duration = Duration::from_secs(60);
/// Pages of a guest that is slow to copy: 40 MiB of noise, some 85 s over [`SLOW_LINK`]. Whoever is caught in
/// the middle of a copy has time, however busy the machine is; then the link is made fast again.
const NOISY_PAGES: u32 = 10_240;
/// The rate of a slowed link.
const SLOW_LINK: &str = "4mbit";

/// One line of a guest's heartbeat.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Beat {
    /// The host it was heard on.
    pub host: String,
    /// The count: goes up by one a second of guest time, over migrations.
    pub n: u64,
    /// Pages written since boot.
    pub pages: u64,
}

/// What the heartbeats of all hosts tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heart {
    /// Every beat, in order.
    pub beats: Vec<Beat>,
    /// Counts that two hosts have seen: the guest ran twice.
    pub counted_twice: Vec<u64>,
}

impl Heart {
    /// The newest count.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.beats.last().map_or(0, |beat| beat.n)
    }

    /// Counts between the first and the last that no host has seen.
    #[must_use]
    pub fn missing(&self) -> Vec<u64> {
        let seen: BTreeSet<u64> = self.beats.iter().map(|beat| beat.n).collect();
        let (Some(first), Some(last)) = (seen.first(), seen.last()) else {
            return vec![];
        };
        (*first..=*last).filter(|n| !seen.contains(n)).collect()
    }
}

impl Lab {
    /// Adds a guest and waits for its first heartbeat; `more` are options of `lab guest add`.
    pub fn add_guest(&self, host: &str, name: &str, more: &[&str]) {
        self.run(&[&["guest", "add", host, name], more].concat());
        until(&format!("{name} to boot"), BOOT, || {
            !self.heart(name).beats.is_empty()
        });
    }

    /// Adds a guest full of noise that takes a long time over a slowed link, and slows that of its host.
    pub fn add_slow_guest(&self, host: &str, name: &str) {
        self.add_guest(host, name, &["--mem", "96"]);
        let dials = format!("guest set {name} r1 s{NOISY_PAGES} d6000");
        self.run(&dials.split(' ').collect::<Vec<_>>());
        until(&format!("{name} to fill its memory"), BOOT, || {
            let pages = self.heart(name).beats.last().map_or(0, |beat| beat.pages);
            pages >= u64::from(NOISY_PAGES)
        });
        self.run(&["guest", "set", name, "d0"]);
        self.fault(&["link", host, "migration", SLOW_LINK]);
    }

    /// The link of a host as fast as it can be.
    pub fn full_speed(&self, host: &str) {
        self.fault(&["link", host, "migration", "full"]);
    }

    /// All heartbeats of a guest.
    #[must_use]
    pub fn heart(&self, name: &str) -> Heart {
        let told = self.json(&["guest", "beats", name, "-o", "json"]);
        let number = |beat: &Value, field: &str| beat[field].as_u64().unwrap_or(0);
        let beats = told["beats"].as_array().cloned().unwrap_or_default();
        let beats = beats.iter().map(|beat| Beat {
            host: beat["host"].as_str().unwrap_or_default().to_owned(),
            n: number(beat, "n"),
            pages: number(beat, "pages"),
        });
        let twice = told["counted_twice"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        Heart {
            beats: beats.collect(),
            counted_twice: twice.iter().filter_map(Value::as_u64).collect(),
        }
    }

    /// Hosts where libvirt says that the guest runs.
    #[must_use]
    pub fn running_on(&self, name: &str) -> Vec<String> {
        let told = self.json(&["guest", "where", name, "-o", "json"]);
        let hosts = told["running_on"].as_array().cloned().unwrap_or_default();
        let names = hosts.iter().filter_map(Value::as_str);
        names.map(str::to_owned).collect()
    }

    /// The guest runs on that host alone by libvirt's word, its heart goes on beating there, it has never
    /// run on two hosts at once and has lost no second.
    pub fn assert_lives_on(&self, name: &str, host: &str) {
        assert_eq!(self.running_on(name), [host], "{name} by libvirt");
        let before = self.heart(name).count();
        let goes_on = wait_for(&format!("{name}'s heart to go on"), BOOT, || {
            let now = self.heart(name);
            (now.count() >= before + 2).then_some(now)
        });
        let last = goes_on.beats.last().map(|beat| beat.host.as_str());
        assert_eq!(last, Some(host), "{name}'s heartbeat");
        let nothing: [u64; 0] = [];
        assert_eq!(goes_on.counted_twice, nothing, "{name} ran twice");
        assert_eq!(goes_on.missing(), nothing, "{name} lost seconds");
    }

    /// A guest's UUID, as the lab gives it.
    #[must_use]
    pub fn uuid(&self, name: &str) -> String {
        let xml = self.text(&format!("guest/{name}.xml"));
        let uuid = xml
            .split("<uuid>")
            .nth(1)
            .and_then(|rest| rest.split('<').next());
        uuid.expect("a guest's definition").to_owned()
    }
}

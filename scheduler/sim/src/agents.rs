//! What the hosts' agents would report, faults included. Reports are kept and updated in place: a week has half a
//! million of them.

use std::collections::BTreeMap;

use evenkeel_proto::v1;
use evenkeel_scheduler::observe::{GuestReading, HostReport};
use evenkeel_types::HostName;

use crate::world::World;

/// The agents of a fleet.
#[derive(Debug)]
pub(crate) struct Agents {
    agents: Vec<Agent>,
}

#[derive(Debug)]
struct Agent {
    host: HostName,
    /// Reports of this process.
    sequence: u64,
    /// The state of the host's guests that the kept report shows.
    shows: Option<u64>,
}

impl Agents {
    pub(crate) fn new(world: &World) -> Self {
        let agent = |host: &crate::fleet::SimHost| Agent {
            host: host.facts.name.clone(),
            sequence: 0,
            shows: None,
        };
        Self {
            agents: world.hosts().iter().map(agent).collect(),
        }
    }

    /// Puts this moment's reports in the place of those before; returns the hosts that have a new one. The report of
    /// an agent that is gone is taken away, as its lease would.
    pub(crate) fn report(
        &mut self,
        world: &World,
        reports: &mut BTreeMap<HostName, HostReport>,
    ) -> Vec<&HostName> {
        let mut fresh = vec![];
        for (number, agent) in self.agents.iter_mut().enumerate() {
            let trouble = world.trouble(number);
            if world.hosts()[number].absent || trouble.lost || trouble.agent_down {
                reports.remove(&agent.host);
                (agent.sequence, agent.shows) = (0, None);
                continue;
            }
            if trouble.silent {
                continue;
            }
            agent.sequence += 1;
            match reports.get_mut(&agent.host) {
                Some(report) if agent.shows == Some(world.changes(number)) => {
                    for (reading, &guest) in report.guests.iter_mut().zip(world.members(number)) {
                        measure(world, guest, reading);
                    }
                    sum_up(world, number, agent.sequence, report);
                }
                Some(_) | None => {
                    let mut report = blank(world, number);
                    sum_up(world, number, agent.sequence, &mut report);
                    reports.insert(agent.host.clone(), report);
                    agent.shows = Some(world.changes(number));
                }
            }
            fresh.push(&agent.host);
        }
        fresh
    }
}

fn blank(world: &World, host: usize) -> HostReport {
    let reading = |&guest: &usize| {
        let mut reading = world.guests()[guest].reading.clone();
        measure(world, guest, &mut reading);
        reading
    };
    HostReport {
        revision: 0,
        sequence: 0,
        measured_at_ms: 0,
        libvirt_up: true,
        guests_cpu_cores: 0.0,
        host_cpu_cores: 0.0,
        pressure: v1::Pressure::default(),
        guests: world.members(host).iter().map(reading).collect(),
        migrations_running: 0,
        troubles: vec![],
    }
}

fn measure(world: &World, guest: usize, reading: &mut GuestReading) {
    let (wanted, given) = (world.wanted()[guest], world.given()[guest]);
    reading.cpu_used_cores = given;
    reading.cpu_delay_cores = (wanted - given).max(0.0);
    reading.during_migration = world.is_migrating(guest);
}

fn sum_up(world: &World, host: usize, sequence: u64, report: &mut HostReport) {
    report.sequence = sequence;
    report.measured_at_ms = world.now_ms();
    report.guests_cpu_cores = report.guests.iter().map(|guest| guest.cpu_used_cores).sum();
    report.host_cpu_cores = report.guests_cpu_cores + world.own_cores(host);
    report.migrations_running = u32::try_from(world.migrations_at(host)).unwrap_or(u32::MAX);
}

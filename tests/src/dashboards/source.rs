//! The five dashboards. The first row of each answers: is it healthy, is it acting, and if not, why not.

use super::draw::{Dashboard, Kind, Panel, Row};

/// Unit of losses.
const LOSS: &str = "suffix: guest-s/s";

/// All of them.
#[must_use]
pub fn all() -> Vec<Dashboard> {
    vec![fleet(), host(), migrations(), scheduler(), guest()]
}

fn row(title: &'static str, height: u32, panels: Vec<Panel>) -> Row {
    Row {
        title,
        height,
        panels,
    }
}

fn stat(title: &'static str, description: &'static str) -> Panel {
    Panel::new(Kind::Stat, title, description).width(4)
}

fn lines(title: &'static str, description: &'static str) -> Panel {
    Panel::new(Kind::Lines, title, description).width(8)
}

fn states(title: &'static str, description: &'static str) -> Panel {
    Panel::new(Kind::States, title, description)
        .word("0", "no", "transparent")
        .word("1", "yes", "orange")
}

/// How far a share of a histogram's observations of the last hour went.
fn quantile(q: &str, metric: &str, by: &str) -> String {
    format!("histogram_quantile({q}, sum by (le{by}) (rate(evenkeel_{metric}_bucket[1h])))")
}

fn alerts() -> Panel {
    stat(
        "Alerts",
        "Alerts of Evenkeel that are firing. Each has a runbook.",
    )
    .query(
        r#"count(ALERTS{alertname=~"Evenkeel.+",alertstate="firing"}) or vector(0)"#,
        "firing",
    )
    .from(1.0, "red")
}

fn holds() -> Panel {
    states(
        "Held back by",
        "What keeps the leader from starting automatic moves. `evenkeel status` has a sentence of each.",
    )
    .query("max by (reason) (evenkeel:scheduler_hold:leader)", "{{reason}}")
}

fn mode() -> Panel {
    Panel::new(
        Kind::Name,
        "Mode",
        "What the balancer does by itself: automatic moves guests, observe recommends only, off does neither.",
    )
    .width(4)
    .query(
        "max by (mode) (evenkeel_mode and on (instance) evenkeel_scheduler_leader == 1) == 1",
        "{{mode}}",
    )
}

fn fleet() -> Dashboard {
    Dashboard {
        uid: "evenkeel-fleet",
        title: "Evenkeel / Fleet",
        description: "The fleet as the leading scheduler sees it: what is lost, what is planned, and what is in the way.",
        variables: vec![],
        rows: vec![fleet_first(), fleet_loss(), fleet_rules(), fleet_trouble()],
    }
}

fn fleet_first() -> Row {
    row(
        "Is it healthy, is it acting, if not why not",
        6,
        vec![
            alerts(),
            stat("Leaders", "Schedulers that lead; exactly one should.")
                .query("sum(evenkeel_scheduler_leader)", "leaders")
                .from(0.0, "red")
                .from(1.0, "green")
                .from(2.0, "red"),
            mode(),
            stat(
                "Planned moves",
                "Moves in the newest plan; in mode observe they are recommendations.",
            )
            .query("max(evenkeel_plan_moves)", "moves"),
            holds().width(8),
        ],
    )
}

fn fleet_loss() -> Row {
    row(
        "What is lost",
        9,
        vec![
            lines(
                "Loss of the fleet",
                "How many vCPUs are waiting for a core, on average: now, and once the plan is carried out.",
            )
            .unit(LOSS)
            .query(
                "max by (state) (evenkeel:fleet_loss_guest_seconds_per_second:leader)",
                "{{state}}",
            ),
            lines("Loss by host", "Where they are waiting.").unit(LOSS).query(
                "max by (host) (evenkeel:host_loss_guest_seconds_per_second:leader)",
                "{{host}}",
            ),
            lines(
                "Utilisation by host",
                "Demand of the guests over what the host offers. Above 100 % somebody waits.",
            )
            .unit("percentunit")
            .query(
                "max by (host, resource) (evenkeel_host_utilisation_ratio and on (instance) evenkeel_scheduler_leader == 1)",
                "{{host}} {{resource}}",
            ),
        ],
    )
}

fn fleet_rules() -> Row {
    row(
        "Hosts and rules",
        8,
        vec![
            lines("Hosts by state", "Active hosts take guests; absent ones do not report.")
                .width(6)
                .query("sum by (state) (evenkeel:host_state:leader)", "{{state}}"),
            lines("Drains", "Hosts being drained, by how that stands.").width(6).query(
                "max by (state) (evenkeel_drains and on (instance) evenkeel_scheduler_leader == 1)",
                "{{state}}",
            ),
            lines(
                "Guests left on draining hosts",
                "How many have to leave still, and whether the deadline has passed (1).",
            )
            .width(6)
            .query("max by (host) (evenkeel_drain_guests_left)", "{{host}}: left")
            .query("max by (host) (evenkeel_drain_overdue)", "{{host}}: overdue"),
            lines(
                "Rules that do not hold",
                "Guests that would have to move for the rule to hold, as of the newest plan.",
            )
            .width(6)
            .query(
                "max by (rule, kind) (evenkeel:policy_violations:leader)",
                "{{rule}} ({{kind}})",
            ),
        ],
    )
}

fn fleet_trouble() -> Row {
    row(
        "Guests to worry about",
        5,
        vec![
            stat(
                "On two hosts",
                "Guests that run twice, or disks with two writers. Must be 0.",
            )
            .width(5)
            .query("max(evenkeel_guests_on_two_hosts)", "schedulers say")
            .query("sum(evenkeel_agent_guest_on_two_hosts)", "agents say")
            .from(1.0, "red"),
            stat(
                "Of unknown whereabouts",
                "Guests whose migration's outcome is not known; they are untouchable.",
            )
            .width(5)
            .query("max(evenkeel_migrations_unknown)", "guests")
            .from(1.0, "red"),
            stat(
                "Moved by others",
                "Migrations under way that Evenkeel did not order.",
            )
            .width(5)
            .query("max(evenkeel_foreign_migrations)", "migrations")
            .from(1.0, "orange"),
            stat(
                "Most moves of a guest",
                "Of the guest that has moved most often within 24 hours.",
            )
            .width(5)
            .query("max(evenkeel_guest_moves_day_max)", "moves")
            .from(13.0, "orange"),
            stat(
                "Versions",
                "Different versions of daemons; more than one during an upgrade only.",
            )
            .query("count by (version) (evenkeel_build_info)", "{{version}}"),
        ],
    )
}

fn host() -> Dashboard {
    Dashboard {
        uid: "evenkeel-host",
        title: "Evenkeel / Host",
        description: "Hosts as their agents see them: utilisation, saturation, errors, guests.",
        variables: vec![("host", "label_values(evenkeel_agent_info, host)")],
        rows: vec![
            host_first(),
            host_use(),
            host_saturation(),
            host_errors(),
            host_guests(),
        ],
    }
}

fn host_first() -> Row {
    row(
        "Is it healthy, is it acting, if not why not",
        6,
        vec![
            stat("libvirt", "Whether libvirt answers the agent.")
                .query(r#"evenkeel_agent_libvirt_up{host=~"$host"}"#, "{{host}}")
                .from(0.0, "red")
                .from(1.0, "green")
                .word("0", "down", "red")
                .word("1", "up", "green"),
            stat("Last report", "Time since the agent last wrote a report to etcd.")
                .unit("s")
                .query(
                    r#"time() - evenkeel_agent_report_last_success_timestamp_seconds{host=~"$host"}"#,
                    "{{host}}",
                )
                .from(30.0, "orange")
                .from(60.0, "red"),
            Panel::new(Kind::Name, "State", "What the leader takes the host for.").width(4).query(
                r#"max by (host, state) (evenkeel:host_state:leader{host=~"$host"}) == 1"#,
                "{{host}}: {{state}}",
            ),
            stat("Agents", "Agents that are scraped.")
                .query(r#"count(evenkeel_agent_info{host=~"$host"})"#, "agents"),
            lines("Loss", "How many vCPUs of the host's guests are waiting for a core, on average.")
                .unit(LOSS)
                .query(
                    r#"max by (host) (evenkeel:host_loss_guest_seconds_per_second:leader{host=~"$host"})"#,
                    "{{host}}",
                ),
        ],
    )
}

fn host_use() -> Row {
    row(
        "Utilisation",
        8,
        vec![
            lines("CPU used", "Cores in use, by everything on the host, and what it offers to guests.")
                .query(
                    r#"sum by (host, mode) (rate(evenkeel_host_cpu_seconds_total{host=~"$host"}[$__rate_interval]))"#,
                    "{{host}}: {{mode}}",
                )
                .query(r#"evenkeel_host_cpus{host=~"$host"}"#, "{{host}}: offered"),
            lines("Memory available", "Memory that could be given out without swapping, of all there is.")
                .unit("bytes")
                .query(r#"evenkeel_host_memory_available_bytes{host=~"$host"}"#, "{{host}}: available")
                .query(r#"evenkeel_host_memory_bytes{host=~"$host"}"#, "{{host}}: all"),
            lines("Memory of guests", "Promised to guests, held by their processes, and kept for guests under way to the host.")
                .unit("bytes")
                .query(r#"sum by (host) (evenkeel_domain_memory_assigned_bytes{host=~"$host"})"#, "{{host}}: assigned")
                .query(r#"sum by (host) (evenkeel_domain_memory_rss_bytes{host=~"$host"})"#, "{{host}}: resident")
                .query(r#"evenkeel_agent_reserved_bytes{host=~"$host"}"#, "{{host}}: reserved"),
        ],
    )
}

fn host_saturation() -> Row {
    row(
        "Saturation",
        8,
        vec![
            lines("Pressure", "Share of the time in which some or all (full) tasks of the host waited, over five minutes.")
                .unit("percentunit")
                .width(12)
                .query(
                    r#"max by (host, resource, kind) (evenkeel:host_pressure_stalled:ratio_rate5m{host=~"$host"})"#,
                    "{{host}}: {{resource}} {{kind}}",
                ),
            lines("Run delay of guests", "vCPUs that were ready to run and did not, on average.")
                .query(
                    r#"sum by (host) (rate(evenkeel_domain_vcpu_delay_seconds_total{host=~"$host"}[$__rate_interval]))"#,
                    "{{host}}",
                ),
            stat("Pressure is told", "Whether the kernel tells pressure; without it memory is judged by what is used.")
                .query(r#"evenkeel_host_pressure_available{host=~"$host"}"#, "{{host}}")
                .from(0.0, "orange")
                .from(1.0, "green")
                .word("0", "no", "orange")
                .word("1", "yes", "green"),
        ],
    )
}

fn host_errors() -> Row {
    row(
        "Errors",
        8,
        vec![
            lines("Failed looks", "Looks of the agent that brought nothing, per second, by what was looked at.")
                .unit("ops")
                .width(6)
                .query(
                    r#"sum by (host, collector) (rate(evenkeel_agent_collect_errors_total{host=~"$host"}[$__rate_interval]))"#,
                    "{{host}}: {{collector}}",
                ),
            lines("Time of a look", "In which 95 of 100 looks of the last hour were done.")
                .unit("s")
                .width(6)
                .query(
                    r#"histogram_quantile(0.95, sum by (le, host, collector) (rate(evenkeel_agent_collect_duration_seconds_bucket{host=~"$host"}[1h])))"#,
                    "{{host}}: {{collector}}",
                ),
            lines("Reports", "Reports to etcd per second, by result.")
                .unit("ops")
                .width(6)
                .query(
                    r#"sum by (host, result) (rate(evenkeel_agent_reports_total{host=~"$host"}[$__rate_interval]))"#,
                    "{{host}}: {{result}}",
                ),
            lines("Refused orders", "Orders that the agent refused as their source within an hour, by reason.")
                .width(6)
                .query(
                    r#"sum by (host, reason) (increase(evenkeel_agent_orders_refused_total{host=~"$host"}[1h]))"#,
                    "{{host}}: {{reason}}",
                ),
        ],
    )
}

fn host_guests() -> Row {
    row(
        "Guests and migrations",
        8,
        vec![
            lines("Guests", "Guests on the host, and whether Evenkeel could move them.").query(
                r#"count by (host, movable) (evenkeel_domain_info{host=~"$host"})"#,
                "{{host}}: movable {{movable}}",
            ),
            lines("vCPUs", "vCPUs of its guests.")
                .query(r#"sum by (host) (evenkeel_domain_vcpus{host=~"$host"})"#, "{{host}}"),
            lines("Migrations", "Migrations that touch the host now, and those away from it that ended within an hour.")
                .query(r#"evenkeel_host_migrations_running{host=~"$host"}"#, "{{host}}: running")
                .query(
                    r#"sum by (host, result) (increase(evenkeel_agent_migrations_total{host=~"$host"}[1h]))"#,
                    "{{host}}: {{result}}",
                ),
        ],
    )
}

fn migrations() -> Dashboard {
    Dashboard {
        uid: "evenkeel-migrations",
        title: "Evenkeel / Migrations",
        description: "What is being moved, how long it takes, and why it is refused or fails.",
        variables: vec![(
            "trigger",
            "label_values(evenkeel_migrations_total, trigger)",
        )],
        rows: vec![
            migrations_first(),
            migrations_copies(),
            migrations_ends(),
            migrations_refused(),
        ],
    }
}

fn migrations_first() -> Row {
    row(
        "Is it healthy, is it acting, if not why not",
        6,
        vec![
            stat("Under way", "Migrations that run now.")
                .query("max(evenkeel_migrations_running)", "migrations"),
            stat("At most", "Migrations that the policy allows at a time.")
                .query("max(evenkeel_migrations_running_limit)", "migrations"),
            stat(
                "Failed within an hour",
                "Migrations that began and did not arrive.",
            )
            .query(
                r#"sum(evenkeel:migration_failures:increase1h{phase="copy"})"#,
                "migrations",
            )
            .from(1.0, "orange")
            .from(3.0, "red"),
            stat(
                "Outcome unknown",
                "Neither host can say where the guest is.",
            )
            .query("max(evenkeel_migrations_unknown)", "migrations")
            .from(1.0, "red"),
            holds().width(8),
        ],
    )
}

fn migrations_copies() -> Row {
    row(
        "Copies under way",
        8,
        vec![
            lines("Left", "Bytes left in this round of the copy. A saw's teeth are rounds; if they do not shrink it does not converge.")
                .unit("bytes")
                .query("evenkeel_migration_progress_remaining_bytes", "{{domain}} from {{host}}"),
            lines("Copied", "Bytes copied so far; more than there is when memory is copied again.")
                .unit("bytes")
                .query("evenkeel_migration_progress_transferred_bytes", "{{domain}} from {{host}}")
                .query("evenkeel_migration_progress_total_bytes", "{{domain}}: all"),
            lines("By others", "Migrations that Evenkeel did not order: under way, and seen within an hour.")
                .query("max(evenkeel_foreign_migrations)", "under way")
                .query("max(increase(evenkeel_foreign_migrations_total[1h]))", "within an hour"),
        ],
    )
}

fn migrations_ends() -> Row {
    row(
        "How they end",
        8,
        vec![
            lines(
                "Ended within an hour",
                "By what started them, and how they ended.",
            )
            .width(6)
            .query(
                r#"sum by (trigger, result) (evenkeel:migrations:increase1h{trigger=~"$trigger"})"#,
                "{{trigger}}: {{result}}",
            ),
            lines(
                "Duration",
                "From start to settled end: half, and 95 of 100 of the last hour took less.",
            )
            .unit("s")
            .width(6)
            .query(
                &quantile("0.5", "migration_duration_seconds", ", result"),
                "{{result}}: half",
            )
            .query(
                &quantile("0.95", "migration_duration_seconds", ", result"),
                "{{result}}: 95 %",
            ),
            lines(
                "Pause of the guest",
                "At switch-over: half, and 95 of 100 of the last hour took less.",
            )
            .unit("s")
            .width(6)
            .query(&quantile("0.5", "migration_downtime_seconds", ""), "half")
            .query(&quantile("0.95", "migration_downtime_seconds", ""), "95 %"),
            lines(
                "Size",
                "Bytes copied: half, and 95 of 100 of the last hour took less.",
            )
            .unit("bytes")
            .width(6)
            .query(&quantile("0.5", "migration_bytes", ""), "half")
            .query(&quantile("0.95", "migration_bytes", ""), "95 %"),
        ],
    )
}

fn migrations_refused() -> Row {
    row(
        "What does not go, and how well it is foreseen",
        9,
        vec![
            lines(
                "Refused or failed within an hour",
                "By phase (prepare: refused, copy: failed) and reason.",
            )
            .query(
                "sum by (phase, reason) (evenkeel:migration_failures:increase1h) > 0",
                "{{phase}}: {{reason}}",
            ),
            lines(
                "Planned and not started",
                "Planned moves that were put off, per second, by reason.",
            )
            .unit("ops")
            .query(
                "sum by (reason) (rate(evenkeel_moves_rejected_total[$__rate_interval])) > 0",
                "{{reason}}",
            ),
            lines(
                "Measured over predicted",
                "1: exactly as predicted. Half, and 95 of 100 of the last hour were below.",
            )
            .query(
                &quantile("0.5", "migration_prediction_error_ratio", ", quantity"),
                "{{quantity}}: half",
            )
            .query(
                &quantile("0.95", "migration_prediction_error_ratio", ", quantity"),
                "{{quantity}}: 95 %",
            ),
        ],
    )
}

fn scheduler() -> Dashboard {
    Dashboard {
        uid: "evenkeel-scheduler",
        title: "Evenkeel / Scheduler",
        description: "Schedulers and etcd behind them; processes and certificates of all daemons.",
        variables: vec![(
            "instance",
            "label_values(evenkeel_scheduler_leader, instance)",
        )],
        rows: vec![
            scheduler_first(),
            scheduler_loop(),
            scheduler_etcd(),
            scheduler_events(),
            scheduler_process(),
        ],
    }
}

fn scheduler_first() -> Row {
    row(
        "Is it healthy, is it acting, if not why not",
        6,
        vec![
            states("Leader", "Which replica leads.")
                .query(r#"evenkeel_scheduler_leader{instance=~"$instance"}"#, "{{instance}}"),
            stat("Last look", "Time since the replica looked at the fleet, which it does each half second.")
                .unit("s")
                .query(
                    r#"time() - evenkeel_scheduler_last_look_timestamp_seconds{instance=~"$instance"}"#,
                    "{{instance}}",
                )
                .from(30.0, "orange")
                .from(60.0, "red"),
            stat("Last cycle", "Time since the leader's last planning cycle ended.")
                .unit("s")
                .query(
                    "max(time() - (evenkeel_scheduler_last_cycle_timestamp_seconds and on (instance) evenkeel_scheduler_leader == 1))",
                    "leader",
                )
                .from(300.0, "orange")
                .from(600.0, "red"),
            stat("etcd", "Whether etcd answered last time.")
                .query(r#"evenkeel_scheduler_etcd_up{instance=~"$instance"}"#, "{{instance}}")
                .from(0.0, "red")
                .from(1.0, "green")
                .word("0", "down", "red")
                .word("1", "up", "green"),
            holds(),
        ],
    )
}

fn scheduler_loop() -> Row {
    row(
        "The control loop",
        8,
        vec![
            lines("Cycles", "Planning cycles per second, by outcome.")
                .unit("ops")
                .width(6)
                .query(
                    "sum by (outcome) (rate(evenkeel_scheduler_cycles_total[$__rate_interval]))",
                    "{{outcome}}",
                ),
            lines(
                "Time of a cycle",
                "In which 95 of 100 cycles of the last hour were done, by phase.",
            )
            .unit("s")
            .width(6)
            .query(
                &quantile("0.95", "scheduler_cycle_duration_seconds", ", phase"),
                "{{phase}}",
            ),
            lines(
                "Epoch",
                "Of the replica's leadership: it grows with each leader; 0: it does not lead.",
            )
            .width(6)
            .query(
                r#"evenkeel_scheduler_epoch{instance=~"$instance"}"#,
                "{{instance}}",
            ),
            lines(
                "Times in the lead",
                "How often the replica has taken the lead since it was started.",
            )
            .width(6)
            .query(
                r#"evenkeel_scheduler_leader_transitions_total{instance=~"$instance"}"#,
                "{{instance}}",
            ),
        ],
    )
}

fn scheduler_etcd() -> Row {
    row(
        "etcd and the policy",
        8,
        vec![
            lines("Requests", "Requests of all daemons to etcd per second, by operation and result.")
                .unit("ops")
                .query(
                    "sum by (op, result) (rate(evenkeel_etcd_request_duration_seconds_count[$__rate_interval]))",
                    "{{op}}: {{result}}",
                ),
            lines("Slowest requests", "In which 99 of 100 requests of five minutes were answered.")
                .unit("s")
                .query(
                    r#"evenkeel:etcd_request_duration_seconds:p99_5m{instance=~"$instance"}"#,
                    "{{instance}}",
                ),
            stat("Malformed values", "Values in etcd that are not used because they cannot be understood.")
                .query("max(evenkeel_scheduler_malformed_values)", "values")
                .from(1.0, "orange"),
            Panel::new(Kind::Name, "Policy", "Revision of the policy in force.")
                .width(4)
                .query("max by (revision) (evenkeel_policy_info)", "revision {{revision}}"),
        ],
    )
}

fn scheduler_events() -> Row {
    row(
        "The audit trail",
        8,
        vec![
            lines("Events", "Events of the last hour, by what happened.")
                .width(16)
                .query(
                    "sum by (kind) (increase(evenkeel_events_total[1h])) > 0",
                    "{{kind}}",
                ),
            stat(
                "Events that are missing",
                "That were not recorded since the replicas were started: too many waited, or the lead was lost. Orders and their ends are never among them.",
            )
            .width(8)
            .query("sum(evenkeel_events_dropped_total)", "events")
            .from(1.0, "orange"),
        ],
    )
}

fn scheduler_process() -> Row {
    row(
        "Processes of all daemons",
        8,
        vec![
            lines("CPU", "Cores that the daemon uses.").width(5).query(
                r#"rate(process_cpu_seconds_total{job=~"evenkeel.*"}[$__rate_interval])"#,
                "{{job}} {{instance}}",
            ),
            lines(
                "Memory",
                "Memory that the daemon holds, and its address space.",
            )
            .unit("bytes")
            .width(5)
            .query(
                r#"process_resident_memory_bytes{job=~"evenkeel.*"}"#,
                "{{job}} {{instance}}",
            )
            .query(
                r#"process_virtual_memory_bytes{job=~"evenkeel.*"}"#,
                "{{job}} {{instance}}: address space",
            ),
            lines(
                "Open files and threads",
                "Files that are open, how many may be, and threads.",
            )
            .width(5)
            .query(
                r#"process_open_fds{job=~"evenkeel.*"}"#,
                "{{job}} {{instance}}: open",
            )
            .query(
                r#"process_max_fds{job=~"evenkeel.*"}"#,
                "{{job}} {{instance}}: at most",
            )
            .query(
                r#"process_threads{job=~"evenkeel.*"}"#,
                "{{job}} {{instance}}: threads",
            ),
            stat("Up for", "Time since the daemon was started.")
                .unit("s")
                .query(
                    r#"time() - process_start_time_seconds{job=~"evenkeel.*"}"#,
                    "{{job}} {{instance}}",
                ),
            stat(
                "Certificate ends in",
                "Time until the certificate that the daemon has loaded ends.",
            )
            .unit("s")
            .width(5)
            .query(
                "evenkeel_certificate_expiry_timestamp_seconds - time()",
                "{{job}} {{instance}}",
            )
            .from(-1e9, "red")
            .from(14.0 * 86_400.0, "green"),
        ],
    )
}

fn guest() -> Dashboard {
    Dashboard {
        uid: "evenkeel-guest",
        title: "Evenkeel / Guest",
        description: "Guests as the agents of their hosts see them. The label domain is libvirt's name of a guest.",
        variables: vec![
            ("host", "label_values(evenkeel_domain_info, host)"),
            (
                "domain",
                r#"label_values(evenkeel_domain_info{host=~"$host"}, domain)"#,
            ),
        ],
        rows: vec![guest_first(), guest_use()],
    }
}

fn guest_first() -> Row {
    row(
        "Is it healthy, is it acting, if not why not",
        7,
        vec![
            states("Where it is", "The host that has the guest, and whether Evenkeel could move it from there.").query(
                r#"max by (domain, host, movable) (evenkeel_domain_info{host=~"$host",domain=~"$domain"})"#,
                "{{domain}} on {{host}}, movable {{movable}}",
            ),
            lines("Waits", "vCPUs of the guest that were ready to run and did not, on average.").width(6).query(
                r#"sum by (domain) (rate(evenkeel_domain_vcpu_delay_seconds_total{host=~"$host",domain=~"$domain"}[$__rate_interval]))"#,
                "{{domain}}",
            ),
            lines("Is being moved", "Bytes left of a copy under way.").unit("bytes").width(6).query(
                r#"evenkeel_migration_progress_remaining_bytes{host=~"$host",domain=~"$domain"}"#,
                "{{domain}} from {{host}}",
            ),
            holds(),
        ],
    )
}

fn guest_use() -> Row {
    row(
        "What it uses",
        9,
        vec![
            lines("CPU", "Cores that the guest's vCPUs ran on, and how many vCPUs there are.")
                .query(
                    r#"sum by (domain) (rate(evenkeel_domain_cpu_seconds_total{host=~"$host",domain=~"$domain"}[$__rate_interval]))"#,
                    "{{domain}}: used",
                )
                .query(r#"max by (domain) (evenkeel_domain_vcpus{host=~"$host",domain=~"$domain"})"#, "{{domain}}: vCPUs"),
            lines("Memory", "What the guest may use, and what its process holds of the host's.")
                .unit("bytes")
                .query(
                    r#"max by (domain) (evenkeel_domain_memory_assigned_bytes{host=~"$host",domain=~"$domain"})"#,
                    "{{domain}}: assigned",
                )
                .query(
                    r#"max by (domain) (evenkeel_domain_memory_rss_bytes{host=~"$host",domain=~"$domain"})"#,
                    "{{domain}}: resident",
                ),
            lines("Dirty rate", "Memory that the guest changes, as last measured. Measured are guests that a plan wants to move.")
                .unit("Bps")
                .query(
                    r#"max by (domain) (evenkeel_domain_dirty_rate_bytes_per_second{host=~"$host",domain=~"$domain"})"#,
                    "{{domain}}",
                ),
        ],
    )
}

//! The live view: the fleet on one screen. Drawing depends on the arguments only.

use jiff::Timestamp;
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Paragraph};

use super::status;
use super::text::{amount, bytes, cores, count, harmless, hundredths, percent, tenths, words};
use crate::view::{Host, Migration, Plan, Status, float};

/// Lines of what is wrong or holds the balancer back, at most.
const MOST_NOTES: usize = 4;
/// Lines inside the boxes below the hosts, at most.
const MOST_LINES: usize = 6;
/// The keys, for people.
const KEYS: &str = "q quit   s sort by loss, CPU, memory or name   up/down, PgUp/PgDn scroll";

/// The fleet as it was seen last.
#[derive(Debug, Clone, PartialEq)]
pub struct Picture {
    /// The fleet at a glance.
    pub status: Status,
    /// Every host.
    pub hosts: Vec<Host>,
    /// What the balancer would do; `None`: not known yet.
    pub plan: Option<Plan>,
    /// When it was seen.
    pub seen_at: Timestamp,
    /// Why it could not be seen since.
    pub trouble: Option<String>,
}

/// What hosts are ordered by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Order {
    /// What is lost there, the most first.
    #[default]
    Loss,
    /// CPU demand over cores, the fullest first.
    Cpu,
    /// Allocated over offered memory, the fullest first.
    Memory,
    /// The name.
    Name,
}

impl Order {
    /// The next one, round and round.
    #[must_use]
    pub fn next(self) -> Self {
        match self {
            Self::Loss => Self::Cpu,
            Self::Cpu => Self::Memory,
            Self::Memory => Self::Name,
            Self::Name => Self::Loss,
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Loss => "loss",
            Self::Cpu => "CPU",
            Self::Memory => "memory",
            Self::Name => "name",
        }
    }

    fn sort(self, hosts: &mut [&Host]) {
        let loss = |host: &Host| host.loss_guest_seconds_per_second;
        hosts.sort_by(|a, b| {
            let numbers = match self {
                Self::Loss => loss(b).total_cmp(&loss(a)),
                Self::Cpu => cpu(b).total_cmp(&cpu(a)),
                Self::Memory => memory(b).total_cmp(&memory(a)),
                Self::Name => std::cmp::Ordering::Equal,
            };
            numbers.then_with(|| a.name.cmp(&b.name))
        });
    }
}

/// How it is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stance {
    /// What hosts are ordered by.
    pub order: Order,
    /// The first host that is shown.
    pub first: usize,
    /// Whether colours may be used.
    pub colour: bool,
}

/// Draws the picture; returns how many hosts fit at a time.
pub fn draw(frame: &mut Frame<'_>, picture: &Picture, stance: Stance) -> usize {
    let notes = notes(picture, stance.colour);
    let migrations = migrations(&picture.status.migrations, stance.colour);
    let plan = plan(picture.plan.as_ref(), stance.colour);
    let height = |lines: usize| Constraint::Length(u16::try_from(lines).unwrap_or(u16::MAX));
    let [head, noted, hosts, moving, planned, keys] = Layout::vertical([
        Constraint::Length(1),
        height(notes.len()),
        Constraint::Min(4),
        height(migrations.len() + 2),
        height(plan.len() + 2),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    frame.render_widget(headline(picture, stance.colour), head);
    frame.render_widget(Paragraph::new(notes), noted);
    let fit = draw_hosts(frame, hosts, picture, stance);
    let title = format!(" Migrations: {} ", picture.status.migrations.len());
    frame.render_widget(boxed(migrations, title), moving);
    let title = match &picture.plan {
        Some(plan) => format!(
            " Plan: {}, losing {} -> {} ",
            count(u32::try_from(plan.steps.len()).unwrap_or(u32::MAX), "move"),
            tenths(plan.loss_before),
            tenths(plan.loss_after)
        ),
        None => " Plan ".to_owned(),
    };
    frame.render_widget(boxed(plan, title), planned);
    let faint = Style::new().add_modifier(Modifier::DIM);
    frame.render_widget(Line::styled(KEYS, faint), keys);
    fit
}

fn boxed(lines: Vec<Line<'static>>, title: String) -> Paragraph<'static> {
    Paragraph::new(lines).block(Block::bordered().title(title))
}

fn tinted(colour: Color, allowed: bool) -> Style {
    match allowed {
        true => Style::new().fg(colour),
        false => Style::new(),
    }
}

fn headline(picture: &Picture, colour: bool) -> Line<'static> {
    let status = &picture.status;
    let loss = status.loss_guest_seconds_per_second;
    let planned = status.loss_planned_guest_seconds_per_second;
    let becomes = planned.map_or_else(String::new, |then| format!(" -> {}", tenths(then)));
    let known = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
    let leader = match status.taken_at {
        Some(taken) => format!("taken {taken}"),
        None => format!(
            "mode {}   leader {}",
            known(&status.mode),
            known(&status.leader)
        ),
    };
    let seen = picture.seen_at.strftime("%H:%M:%SZ");
    let strong = Style::new().add_modifier(Modifier::BOLD);
    let alarm = match loss >= 0.05 {
        true => tinted(Color::Yellow, colour),
        false => tinted(Color::Green, colour),
    };
    Line::from(vec![
        Span::styled(format!("fleet {}", harmless(&status.cluster)), strong),
        Span::raw("   losing "),
        Span::styled(format!("{}{becomes}", tenths(loss)), alarm.patch(strong)),
        Span::raw(harmless(&format!(
            " guest-seconds/s   {leader}   {} guests   {seen}",
            status.guests
        ))),
    ])
}

/// What somebody must look at, and what holds the balancer back: the worst first.
fn notes(picture: &Picture, colour: bool) -> Vec<Line<'static>> {
    let bad = tinted(Color::Red, colour).add_modifier(Modifier::BOLD);
    let warn = tinted(Color::Yellow, colour);
    let trouble = picture.trouble.iter();
    let trouble = trouble.map(|why| (bad, format!("!! as it was at the time above: {why}")));
    let alarms = status::alarms(&picture.status);
    let alarms = alarms.into_iter().map(|alarm| (bad, format!("!! {alarm}")));
    let holds = picture.status.holds.iter();
    let holds = holds.map(|hold| (warn, format!("held back: {hold}")));
    let drains = picture.status.drains.iter();
    let drains = drains.map(|drain| (Style::new(), drain.clone()));
    let all: Vec<(Style, String)> = trouble.chain(alarms).chain(holds).chain(drains).collect();
    let shown = match all.len() > MOST_NOTES {
        true => MOST_NOTES - 1,
        false => all.len(),
    };
    let hidden = all.len() - shown;
    let mut lines: Vec<Line<'static>> = (all.into_iter().take(shown))
        .map(|(style, text)| Line::styled(harmless(&text), style))
        .collect();
    if hidden > 0 {
        let more = format!("and {hidden} more: evenkeel status");
        lines.push(Line::styled(more, warn));
    }
    lines
}

fn cpu(host: &Host) -> f64 {
    share(host.cpu_demand_cores, host.cpu_cores)
}

fn memory(host: &Host) -> f64 {
    share(float(host.memory_allocated_mib), float(host.memory_mib))
}

fn share(part: f64, whole: f64) -> f64 {
    match whole > 0.0 {
        true => part / whole,
        false => 0.0,
    }
}

/// Draws the table of hosts; returns how many rows there is room for.
fn draw_hosts(frame: &mut Frame<'_>, area: Rect, picture: &Picture, stance: Stance) -> usize {
    let mut hosts: Vec<&Host> = picture.hosts.iter().collect();
    stance.order.sort(&mut hosts);
    // Two lines of the frame, one of the head.
    let fit = usize::from(area.height.saturating_sub(3));
    let first = stance.first.min(hosts.len().saturating_sub(fit));
    let last = hosts.len().min(first + fit);
    let widest = picture.hosts.iter().map(|h| h.name.chars().count());
    let name = widest.max().unwrap_or(0).clamp(4, 20);
    // The frame and the other columns take 40 characters; the bars share the rest.
    let free = usize::from(area.width).saturating_sub(name + 40) / 2;
    let bar = free.clamp(8, 30);
    let head = format!(
        "{:name$} {:<8} {:^wide$} {:>7} {:^wide$} {:>6} {:>7}",
        "HOST",
        "STATE",
        "CPU DEMAND",
        "STALLED",
        "MEMORY",
        "GUESTS",
        "LOSING",
        wide = bar + 2
    );
    let strong = Style::new().add_modifier(Modifier::BOLD);
    let mut lines = vec![Line::styled(head, strong)];
    lines.extend((hosts[first..last].iter()).map(|host| host_line(host, name, bar, stance.colour)));
    let title = format!(
        " Hosts {}-{last} of {}, by {} ",
        (first + 1).min(last),
        hosts.len(),
        stance.order.as_str()
    );
    frame.render_widget(boxed(lines, title), area);
    fit
}

fn host_line(host: &Host, name: usize, bar: usize, colour: bool) -> Line<'static> {
    let shown: String = harmless(&host.name).chars().take(name).collect();
    let open = host.state == "active";
    let state = match open {
        true => Style::new(),
        false => tinted(Color::Yellow, colour),
    };
    let silent = host.state == "absent";
    let stalled = host.pressure.map(|p| p.cpu_some_bp.max(p.memory_some_bp));
    let waits = match stalled {
        Some(bp) if bp >= 2000 => tinted(Color::Red, colour),
        Some(bp) if bp >= 500 => tinted(Color::Yellow, colour),
        Some(_) | None => Style::new(),
    };
    let stalled = stalled.map_or_else(|| "-".to_owned(), percent);
    let used = format!(
        "{}/{}",
        cores(host.cpu_demand_cores, host.cpu_cores),
        cores(host.cpu_cores, host.cpu_cores)
    );
    let held = format!("{:.0}%", 100.0 * memory(host));
    let mut spans = vec![
        Span::raw(format!("{shown:name$} ")),
        Span::styled(format!("{:<8} ", host.state), state),
    ];
    spans.extend(gauge(cpu(host), used, bar, silent, colour));
    spans.push(Span::styled(format!(" {stalled:>7} "), waits));
    spans.extend(gauge(memory(host), held, bar, silent, colour));
    spans.push(Span::raw(format!(
        " {:>6} {:>7}",
        host.guests,
        hundredths(host.loss_guest_seconds_per_second)
    )));
    Line::from(spans)
}

/// `[||||||    3.9/4.0]`: full at one; empty where nothing is known.
fn gauge(full: f64, label: String, width: usize, silent: bool, colour: bool) -> Vec<Span<'static>> {
    let label = if silent { "-".to_owned() } else { label };
    let room = width.saturating_sub(label.chars().count());
    let tick = |at: usize| share(at_f64(at) + 0.5, at_f64(width)) < full;
    let ticks = if silent {
        0
    } else {
        (0..width).filter(|at| tick(*at)).count()
    };
    let bar: String = (0..room)
        .map(|at| if at < ticks { '|' } else { ' ' })
        .collect();
    let tint = match full {
        _ if full > 1.0 => Color::Red,
        _ if full > 0.8 => Color::Yellow,
        _ => Color::Green,
    };
    vec![
        Span::raw("["),
        Span::styled(bar, tinted(tint, colour)),
        Span::raw(format!("{label}]")),
    ]
}

fn at_f64(number: usize) -> f64 {
    float(u64::try_from(number).unwrap_or(u64::MAX))
}

fn migrations(migrations: &[Migration], colour: bool) -> Vec<Line<'static>> {
    if migrations.is_empty() {
        return vec![Line::raw("none")];
    }
    let mut lines: Vec<Line<'static>> = (migrations.iter().take(MOST_LINES))
        .map(|migration| migration_line(migration, colour))
        .collect();
    if migrations.len() > MOST_LINES {
        let more = migrations.len() - MOST_LINES;
        lines.push(Line::raw(format!(
            "and {more} more: evenkeel migrations --open"
        )));
    }
    lines
}

fn migration_line(migration: &Migration, colour: bool) -> Line<'static> {
    let Migration {
        guest,
        source,
        target,
        ..
    } = migration;
    let phase = migration.phase.map_or("ordered", |phase| phase.as_str());
    let mut spans = vec![Span::raw(harmless(&format!(
        "{guest:<16} {source} -> {target}   {:<9} ",
        words(phase)
    )))];
    if let (Some(done), Some(progress)) = (migration.copied_permille(), &migration.progress) {
        let label = format!("{}%", done / 10);
        spans.extend(gauge(float(done) / 1000.0, label, 20, false, colour));
        spans.push(Span::raw(format!(
            "  {} left, {}/s",
            bytes(progress.remaining_bytes),
            bytes(progress.bandwidth_bytes_per_second)
        )));
    }
    Line::from(spans)
}

/// What would move, and what would not and why.
fn plan(plan: Option<&Plan>, colour: bool) -> Vec<Line<'static>> {
    let Some(plan) = plan else {
        return vec![Line::raw("being made")];
    };
    let mut lines: Vec<Line<'static>> = (plan.steps.iter().take(MOST_LINES))
        .map(|step| {
            Line::raw(harmless(&format!(
                "{:<16} {} -> {}   saves {} s/h, costs {} s   {}",
                step.guest,
                step.from,
                step.to,
                amount(step.saves_guest_seconds_per_hour),
                amount(step.costs_guest_seconds),
                step.why
            )))
        })
        .collect();
    if plan.steps.len() > MOST_LINES {
        let more = plan.steps.len() - MOST_LINES;
        lines.push(Line::raw(format!("and {more} more: evenkeel plan")));
    }
    let mut reasons: Vec<(String, usize)> = vec![];
    for blocked in &plan.blocked {
        let reason = words(&blocked.reason);
        match reasons.iter_mut().find(|(known, _)| *known == reason) {
            Some((_, count)) => *count += 1,
            None => reasons.push((reason, 1)),
        }
    }
    if !reasons.is_empty() {
        let said = reasons
            .iter()
            .map(|(reason, count)| format!("{count} {reason}"));
        let said = said.collect::<Vec<_>>().join(", ");
        let text = harmless(&format!("not moved: {said}"));
        lines.push(Line::styled(text, tinted(Color::Yellow, colour)));
    }
    if lines.is_empty() {
        lines.push(Line::raw("nothing to move"));
    }
    lines
}

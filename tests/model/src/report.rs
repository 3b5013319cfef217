//! What was found, for people: tables for the terminal and for docs/reference/model-checking.md, and
//! counterexamples in words.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;

use crate::agent::Question;
use crate::bounds::Bounds;
use crate::runs::{self, Broken, Found};
use crate::stage::{Action, Mark};

const BEGIN: &str = "<!-- made by: make model -->\n";
const END: &str = "<!-- end -->";

/// What all runs came to.
#[derive(Debug)]
pub struct Told {
    /// Whether every property held, every guard was missed and every mark was reached.
    pub holds: bool,
    text: String,
}

/// Head of the table of runs.
const HEAD: &str = "| run | hosts | guests | orders | leaders | faults | worlds | steps | depth | time | result |\n\
                    |---|---|---|---|---|---|---|---|---|---|---|";

/// One line of it.
#[must_use]
pub fn row(bounds: &Bounds, found: &Found) -> String {
    let result = found
        .broken
        .as_ref()
        .map_or("holds", |broken| broken.property);
    let torn = if bounds.torn_answers {
        "answers apart"
    } else {
        ""
    };
    let cut = bounds
        .deepest
        .map_or(String::new(), |steps| format!("cut after {steps} steps"));
    let faults: Vec<String> = [bounds.faults.to_string(), torn.to_owned(), cut]
        .into_iter()
        .filter(|words| !words.is_empty())
        .collect();
    format!(
        "| {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {result} |",
        bounds.name,
        bounds.hosts,
        bounds.guests,
        bounds.orders,
        bounds.leaders,
        faults.join(", "),
        found.worlds,
        found.steps,
        found.depth,
        seconds(found.took),
    )
}

fn seconds(took: Duration) -> String {
    format!("{:.1} s", took.as_secs_f64())
}

/// A counterexample, one step a line.
#[must_use]
pub fn counterexample(broken: &Broken) -> String {
    let mut text = format!("not so: {}", broken.property);
    for (no, action) in (1..).zip(&broken.way) {
        text.push_str(&format!("\n{no:>4}. {action}"));
    }
    text
}

/// Goes through `bounds` and through every guard left out; `say` gets each line as soon as it is known.
///
/// # Errors
/// When bounds do not fit into a world, or a line cannot be said.
pub fn all(
    bounds: &[Bounds],
    mut say: impl FnMut(&str) -> std::io::Result<()>,
) -> anyhow::Result<Told> {
    let mut text = String::new();
    let mut tell = |line: &str| {
        text.push_str(line);
        text.push('\n');
        say(line)
    };
    let (mut holds, mut reached) = (true, vec![]);
    tell(HEAD)?;
    for bounds in bounds {
        let found = runs::run(*bounds)?;
        tell(&row(bounds, &found))?;
        if let Some(broken) = &found.broken {
            holds = false;
            tell(&counterexample(broken))?;
        }
        reached.extend(found.reached);
    }
    for mark in Mark::ALL.into_iter().filter(|mark| !reached.contains(mark)) {
        holds = false;
        tell(&format!("\nNever reached: {mark:?}"))?;
    }
    for mutation in runs::mutations() {
        let found = runs::run(mutation.bounds)?;
        let guard = mutation
            .bounds
            .without
            .map_or("nothing", |guard| guard.as_str());
        tell(&format!(
            "\nWithout `{guard}`, after {} worlds:\n",
            found.worlds
        ))?;
        match &found.broken {
            Some(broken) => {
                holds &= broken.property == mutation.breaks;
                tell(&format!("```text\n{}\n```", counterexample(broken)))?;
            }
            None => {
                holds = false;
                tell("nothing goes wrong: the guard is not missed")?;
            }
        }
    }
    Ok(Told { holds, text })
}

impl Told {
    /// Puts the tables between the markers of a file.
    ///
    /// # Errors
    /// When the file cannot be read or written, or has no markers.
    pub fn write_into(&self, file: &Path) -> anyhow::Result<()> {
        let shown = file.display();
        let before = std::fs::read_to_string(file).with_context(|| format!("reading {shown}"))?;
        let (head, rest) = before
            .split_once(BEGIN)
            .with_context(|| format!("{shown} has no line {BEGIN:?}"))?;
        let (_, tail) = rest
            .split_once(END)
            .with_context(|| format!("{shown} has no {END:?}"))?;
        let text = &self.text;
        std::fs::write(file, format!("{head}{BEGIN}\n{text}\n{END}{tail}"))
            .with_context(|| format!("writing {shown}"))
    }
}

impl fmt::Display for Action {
    #[expect(clippy::too_many_lines, reason = "one line for each action")]
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::LeaseExpires => f.write_str("the leader's lease runs out"),
            Self::Elected => f.write_str("the next scheduler leads"),
            Self::Plans(by, guest, target) => {
                write!(f, "s{by} decides to order g{guest} to h{target}")
            }
            Self::Looks(by, guest, false) => write!(f, "s{by} looks at the order of g{guest}"),
            Self::Looks(by, guest, true) => {
                write!(f, "s{by} looks at the order of g{guest}, late")
            }
            Self::Commits(by) => write!(f, "s{by} writes what it has decided"),
            Self::CommitIsLost(by) => write!(f, "etcd does not answer s{by}"),
            Self::LateCommit(by) => write!(f, "etcd carries out what s{by} sent"),
            Self::CallTimesOut(by, order) => {
                write!(f, "s{by} gets no answer to its call with order {order}")
            }
            Self::Arrives(order, by) => write!(f, "order {order} of s{by} reaches its source"),
            Self::Admits(host, guest) => write!(f, "h{host} admits the order of g{guest}"),
            Self::AdmissionIsLost(host, guest) => {
                write!(f, "etcd does not answer h{host} about g{guest}")
            }
            Self::LateLands(host, guest) => {
                write!(f, "etcd carries out what h{host} sent about g{guest}")
            }
            Self::LooksAfter(host, guest) => {
                write!(f, "h{host} looks after its journal of g{guest}")
            }
            Self::Prepares(_, guest, lost) => {
                let what = if lost {
                    "the target is not reached"
                } else {
                    "prepared"
                };
                write!(f, "g{guest}: {what}")
            }
            Self::Writes(host, guest) => write!(f, "h{host} writes its journal of g{guest}"),
            Self::Calls(host, guest) => write!(f, "h{host} calls libvirt for g{guest}"),
            Self::GivesUpOnCall(host, guest) => {
                write!(f, "h{host} sees no sign of its call for g{guest}")
            }
            Self::Hears(host, guest) => {
                write!(f, "h{host} hears that its call for g{guest} is over")
            }
            Self::HearsSwitchover(host, guest) => {
                write!(f, "h{host} hears that g{guest} is handed over")
            }
            Self::JobIsOver(host, guest) => {
                write!(f, "h{host} sees that the job of g{guest} is over")
            }
            Self::Cancels(_, guest) => write!(f, "the migration of g{guest} is cancelled"),
            Self::DeadlinePasses(_, guest) => write!(f, "the deadline of g{guest} passes"),
            Self::Aborts(host, guest) => write!(f, "h{host} aborts the job of g{guest}"),
            Self::Asks(host, guest, question, lost, long) => {
                let what = match question {
                    Question::All => "asks both hosts",
                    Question::Source => "asks its libvirt what it has",
                    Question::Target => "asks the target",
                    Question::Job => "asks its libvirt for a job",
                    Question::Brought => "has all answers",
                };
                let lost = if lost { ", the target is silent" } else { "" };
                let long = if long { ", for long now" } else { "" };
                write!(f, "h{host} {what} (g{guest}){lost}{long}")
            }
            Self::Finishes(host, guest) => write!(f, "h{host} is done with g{guest}"),
            Self::Libvirt(host, guest, doing) => {
                write!(f, "libvirt of h{host}, g{guest}: {doing:?}")
            }
            Self::HalfGoes(host, guest) => {
                write!(f, "libvirt of h{host} drops its half of g{guest}")
            }
            Self::AgentDies(host) => write!(f, "the agent of h{host} is killed"),
            Self::AgentStarts(host) => write!(f, "the agent of h{host} starts"),
            Self::HostDies(host, over) => {
                let over = if over {
                    ", the hand-over gets through"
                } else {
                    ""
                };
                write!(f, "h{host} loses power{over}")
            }
            Self::HostReturns(host) => write!(f, "h{host} has power again"),
            Self::Resolves(_, guest, discard) => {
                let discard = if discard {
                    ", and has the paused half destroyed"
                } else {
                    ""
                };
                write!(f, "an operator says where g{guest} is{discard}")
            }
            Self::ClosesForSilent(by, guest) => {
                write!(f, "s{by} is told to close the migration of g{guest}")
            }
            Self::DestroysByHand(host, guest) => {
                write!(f, "an operator destroys what h{host} has of g{guest}")
            }
        }
    }
}

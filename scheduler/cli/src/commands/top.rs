//! `top`: the fleet on one screen, redrawn until somebody has seen enough.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::sleep;

use super::Session;
use super::fleet::Fleet;
use super::plan;
use crate::args::Source;
use crate::exit::{Exit, Failure};
use crate::output::top::{Picture, Stance, draw};
use crate::view::Plan;

/// Time between two looks. Reports arrive every second or two.
const PERIOD: Duration = Duration::from_secs(2);
/// Planning is work for a whole core of the leader: a plan is asked for this seldom.
const PLAN_PERIOD: Duration = Duration::from_secs(15);
/// The keyboard's thread ends this soon after the rest.
const KEY_WAIT: Duration = Duration::from_millis(200);
/// Keys that wait; whoever leans on one loses some.
const KEYS: usize = 16;

pub(super) async fn top(session: &mut Session<'_>, source: &Source) -> Result<Exit, Failure> {
    session.only("top", &[])?;
    if !session.io.out_is_terminal {
        let instead = "top needs a terminal; `evenkeel status --watch` prints what has changed";
        return Err(Failure::Usage(instead.to_owned()));
    }
    let fleet = Fleet::open(session, source)?;
    // What cannot be seen at all is said as by any other command.
    let picture = look_after(Duration::ZERO, &fleet).await?;
    let end = signal(SignalKind::terminate())?;
    let stance = Stance {
        colour: session.look().colour,
        ..Stance::default()
    };
    let terminal = ratatui::try_init()?;
    let shown = show(terminal, &fleet, picture, stance, end).await;
    ratatui::restore();
    shown
}

async fn show(
    mut terminal: DefaultTerminal,
    fleet: &Fleet,
    mut picture: Picture,
    mut stance: Stance,
    mut end: Signal,
) -> Result<Exit, Failure> {
    let mut keyboard = Keyboard::open();
    let mut looking = Box::pin(look_after(PERIOD, fleet));
    let mut planning = Box::pin(plan_after(Duration::ZERO, fleet));
    loop {
        let mut fit = 0;
        terminal.draw(|frame| fit = draw(frame, &picture, stance))?;
        tokio::select! {
            event = keyboard.events.recv() => match event {
                Some(Event::Key(key)) if key.kind != KeyEventKind::Release => {
                    if is_end(key) {
                        return Ok(Exit::Ok);
                    }
                    stance = turned(stance, key, picture.hosts.len(), fit);
                }
                Some(_) => {}
                None => return Ok(Exit::Ok),
            },
            seen = &mut looking => {
                looking.set(look_after(PERIOD, fleet));
                let plan = picture.plan.take();
                match seen {
                    Ok(seen) => picture = Picture { plan, ..seen },
                    Err(failure) => picture = Picture {
                        plan,
                        trouble: Some(failure.to_string()),
                        ..picture
                    },
                }
            }
            plan = &mut planning => {
                planning.set(plan_after(PLAN_PERIOD, fleet));
                // Whoever cannot be asked for a plan is named by the next look.
                if let Ok(plan) = plan {
                    picture.plan = Some(plan);
                }
            }
            _ = end.recv() => return Ok(Exit::Ok),
        }
    }
}

async fn look_after(wait: Duration, fleet: &Fleet) -> Result<Picture, Failure> {
    sleep(wait).await;
    Ok(Picture {
        status: fleet.status().await?,
        hosts: fleet.hosts().await?,
        plan: None,
        seen_at: Timestamp::now(),
        trouble: None,
    })
}

async fn plan_after(wait: Duration, fleet: &Fleet) -> Result<Plan, Failure> {
    sleep(wait).await;
    let document = match fleet {
        Fleet::Live(client) => plan::live(client, None).await?,
        Fleet::File(recorded) => plan::offline(recorded, None),
    };
    plan::parse("the answer", &document)
}

/// Keys as they come; its thread ends with it.
struct Keyboard {
    events: mpsc::Receiver<Event>,
    over: Arc<AtomicBool>,
}

impl Keyboard {
    fn open() -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let (send, events) = mpsc::channel(KEYS);
        let ends = over.clone();
        std::thread::spawn(move || {
            while !ends.load(Ordering::Relaxed) {
                match event::poll(KEY_WAIT) {
                    Ok(false) => {}
                    // A terminal that is gone ends the view: nobody sends any more.
                    Err(_) => return,
                    Ok(true) => match event::read() {
                        Ok(event) => drop(send.try_send(event)),
                        Err(_) => return,
                    },
                }
            }
        });
        Self { events, over }
    }
}

impl Drop for Keyboard {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
    }
}

fn is_end(key: KeyEvent) -> bool {
    let control = key.modifiers.contains(KeyModifiers::CONTROL);
    let interrupt = control && key.code == KeyCode::Char('c');
    interrupt || [KeyCode::Char('q'), KeyCode::Esc].contains(&key.code)
}

/// How it is looked at after a key.
fn turned(stance: Stance, key: KeyEvent, hosts: usize, fit: usize) -> Stance {
    let last = hosts.saturating_sub(fit);
    let first = stance.first.min(last);
    if key.code == KeyCode::Char('s') {
        let order = stance.order.next();
        return Stance {
            order,
            first: 0,
            ..stance
        };
    }
    let page = fit.max(1);
    let places = [
        (KeyCode::Up, first.saturating_sub(1)),
        (KeyCode::Down, first + 1),
        (KeyCode::PageUp, first.saturating_sub(page)),
        (KeyCode::PageDown, first + page),
        (KeyCode::Home, 0),
        (KeyCode::End, last),
    ];
    let found = places.into_iter().find(|(code, _)| *code == key.code);
    let first = found.map_or(first, |(_, place)| place.min(last));
    Stance { first, ..stance }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::top::Order;

    fn after(stance: Stance, codes: &[KeyCode]) -> Stance {
        codes.iter().fold(stance, |stance, code| {
            turned(stance, KeyEvent::from(*code), 10, 4)
        })
    }

    #[test]
    fn scrolling_stays_within_the_hosts() {
        let start = Stance::default();
        assert_eq!(after(start, &[KeyCode::Up]).first, 0);
        assert_eq!(after(start, &[KeyCode::Down, KeyCode::PageDown]).first, 5);
        assert_eq!(after(start, &[KeyCode::PageDown; 5]).first, 6);
        assert_eq!(after(start, &[KeyCode::End, KeyCode::Up]).first, 5);
        // Hosts have gone away meanwhile.
        let beyond = Stance { first: 90, ..start };
        assert_eq!(after(beyond, &[KeyCode::Up]).first, 5);
    }

    #[test]
    fn another_order_starts_at_the_top_and_comes_round() {
        let down = after(Stance::default(), &[KeyCode::Down, KeyCode::Char('s')]);
        assert_eq!((down.order, down.first), (Order::Cpu, 0));
        assert_eq!(after(down, &[KeyCode::Char('s'); 3]).order, Order::Loss);
    }
}

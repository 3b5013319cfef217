//! What moves as one: a guest, or guests that a must-affinity holds together on one host.

use crate::loss::Load;
use crate::model::{Mobility, Model};
use crate::plan::StepReason;

/// Guests that move together.
#[derive(Debug, Clone)]
pub(crate) struct Unit {
    /// Guest indices, ascending.
    pub(crate) guests: Vec<usize>,
    pub(crate) load: Load,
    /// Where it was when the search began.
    pub(crate) home: usize,
    pub(crate) mobility: Mobility,
    /// Must-rules that keep members apart from others.
    pub(crate) hard_apart: Vec<usize>,
    /// Whether any `should` rule is about it.
    pub(crate) has_soft: bool,
    /// Whether a rule about it looks at several hosts at once, so that it cannot be judged from its own.
    pub(crate) reaches_far: bool,
    /// The broken `apart` rule whose place it has to leave, while that is sought for.
    pub(crate) parting: Option<usize>,
    /// Why it has to move, once that is found.
    pub(crate) forced: Option<StepReason>,
}

impl Unit {
    /// Whether it may be moved for gain.
    pub(crate) fn is_free(&self) -> bool {
        self.mobility == Mobility::Free
    }

    /// Whether it may be moved when something demands it.
    pub(crate) fn can_be_forced(&self) -> bool {
        !matches!(self.mobility, Mobility::Fixed(..))
    }
}

/// The units of a placement, in the order of their first guest.
pub(super) fn build(model: &Model<'_>, placement: &[usize]) -> Vec<Unit> {
    let mut leader: Vec<usize> = (0..model.guests.len()).collect();
    for rule in model.rules.together.iter().filter(|r| r.hard) {
        let Some((&first, rest)) = rule.members.split_first() else {
            continue;
        };
        if rest.iter().any(|&m| placement[m] != placement[first]) {
            continue;
        }
        for &member in rest {
            join(&mut leader, first, member);
        }
    }
    let mut members: Vec<Vec<usize>> = vec![Vec::new(); model.guests.len()];
    for guest in 0..model.guests.len() {
        members[root(&leader, guest)].push(guest);
    }
    members
        .into_iter()
        .filter(|m| !m.is_empty())
        .map(|m| unit(model, placement, m))
        .collect()
}

fn root(leader: &[usize], mut guest: usize) -> usize {
    while leader[guest] != guest {
        guest = leader[guest];
    }
    guest
}

fn join(leader: &mut [usize], a: usize, b: usize) {
    let (a, b) = (root(leader, a), root(leader, b));
    leader[a.max(b)] = a.min(b);
}

fn unit(model: &Model<'_>, placement: &[usize], guests: Vec<usize>) -> Unit {
    let load = guests
        .iter()
        .fold(Load::default(), |sum, &g| sum.plus(&model.guests[g].load));
    let rules = &model.rules;
    let mut hard_apart: Vec<usize> = guests
        .iter()
        .flat_map(|&g| rules.apart_of[g].iter().copied())
        .filter(|&r| rules.apart[r].hard)
        .collect();
    hard_apart.sort_unstable();
    hard_apart.dedup();
    let soft = |&g: &usize| {
        rules.apart_of[g].iter().any(|&r| !rules.apart[r].hard)
            || rules.together_of[g]
                .iter()
                .any(|&r| !rules.together[r].hard)
            || rules.pins_of[g].iter().any(|&r| !rules.pins[r].hard)
    };
    let has_soft = guests.iter().any(soft);
    let wide = |&r: &usize| rules.apart[r].places < model.hosts.len();
    let reaches_far = has_soft
        || guests
            .iter()
            .any(|&g| !rules.together_of[g].is_empty() || rules.apart_of[g].iter().any(wide));
    let mobility = mobility(model, placement, &guests);
    let home = placement[guests[0]];
    Unit {
        guests,
        load,
        home,
        mobility,
        hard_apart,
        has_soft,
        reaches_far,
        parting: None,
        forced: None,
    }
}

/// The least mobile member decides. A member of a must-affinity that is torn apart waits for its repair.
fn mobility(model: &Model<'_>, placement: &[usize], guests: &[usize]) -> Mobility {
    let mut result = Mobility::Free;
    for &guest in guests {
        match &model.guests[guest].mobility {
            Mobility::Fixed(reason, detail) => {
                return Mobility::Fixed(*reason, detail_of(model, guests, guest, detail));
            }
            Mobility::ForcedOnly(reason, detail) => {
                result = Mobility::ForcedOnly(*reason, detail_of(model, guests, guest, detail));
            }
            Mobility::Free => {}
        }
    }
    let torn = guests
        .iter()
        .flat_map(|&g| &model.rules.together_of[g])
        .find(|&&r| {
            let rule = &model.rules.together[r];
            rule.hard
                && rule
                    .members
                    .iter()
                    .any(|&m| placement[m] != placement[rule.members[0]])
        });
    match (result, torn) {
        (Mobility::Free, Some(&rule)) => Mobility::ForcedOnly(
            crate::plan::BlockReason::RuleForbids,
            model.rules.together[rule].name.clone(),
        ),
        (result, _) => result,
    }
}

fn detail_of(model: &Model<'_>, guests: &[usize], guest: usize, detail: &str) -> String {
    if guests.len() == 1 {
        detail.to_owned()
    } else {
        format!(
            "kept together with {}: {detail}",
            model.guests[guest].data.name
        )
    }
}

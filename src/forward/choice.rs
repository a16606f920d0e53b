//! Which instance gets a request: the less loaded of two random ones. A pure function.
//!
//! Two random choices spread load nearly as well as comparing all, and independent copies of the
//! proxy do not all choose the same instance. Ejected instances get no requests, unless so few
//! others are left that these would be overloaded: then ejections do not count (panic threshold).
//! Unreachable instances stay excluded even then, because they would take no load off the others.
//! New ones that were never ready stay excluded, too, and are no sign of overload: all that they have
//! shown is an address, and what fails at once looks least loaded. They are used if nothing else is
//! left. If all are unreachable, the circuit is open, and one request at a time tries each.

use super::health::Share;

/// The state of one instance.
#[derive(Clone, Copy, Debug)]
pub(super) struct Candidate {
    /// Requests in flight, of all workers.
    pub(super) in_flight: u32,
    /// Its share of requests; never [`Share::Due`].
    pub(super) share: Share,
    /// Whether a trial request to this unreachable instance is in flight.
    pub(super) on_trial: bool,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// The most requests in flight at one instance.
    pub(super) max_in_flight: u32,
    /// The percentage of all instances but new ones below which ejections do not count.
    pub(super) panic_percent: usize,
}

/// The instance to send to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Chosen {
    Normal(usize),
    /// A trial request to this unreachable instance; no other request tries it meanwhile.
    Trial(usize),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoChoice {
    /// No instance is known, or all have been tried.
    None,
    /// All are unreachable, and each has a trial in flight.
    Open,
    /// All are at their limit of requests.
    Full,
}

/// The instances that one request has tried.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tried {
    indices: [usize; MAX_TRIED],
    count: usize,
}

/// The most instances that one request tries.
pub(super) const MAX_TRIED: usize = 3;

impl Tried {
    pub(super) fn add(&mut self, index: usize) {
        if let Some(free) = self.indices.get_mut(self.count) {
            *free = index;
            self.count += 1;
        }
    }

    pub(super) fn is_full(&self) -> bool {
        self.count == MAX_TRIED
    }

    pub(super) fn count(&self) -> usize {
        self.count
    }

    fn contains(&self, index: usize) -> bool {
        self.indices[..self.count].contains(&index)
    }
}

/// A source of random numbers.
pub(super) trait Chance {
    /// An integer below a bound that is not 0.
    fn below(&mut self, bound: usize) -> usize;
    /// A fraction from 0 to 1.
    fn fraction(&mut self) -> f64;
}

/// Chooses one of `count` instances.
pub(super) fn choose(
    count: usize,
    view: impl Fn(usize) -> Candidate,
    tried: &Tried,
    bounds: Bounds,
    chance: &mut impl Chance,
) -> Result<Chosen, NoChoice> {
    if count == 0 || tried.is_full() {
        return Err(NoChoice::None);
    }
    if tried.count == 0
        && let Some(index) = choose_quickly(count, &view, bounds, chance)
    {
        return Ok(Chosen::Normal(index));
    }
    let field = Field { count, view, tried, chance };
    field.choose(bounds)
}

/// The usual case: both random choices are healthy.
fn choose_quickly(
    count: usize,
    view: &impl Fn(usize) -> Candidate,
    bounds: Bounds,
    chance: &mut impl Chance,
) -> Option<usize> {
    let first = if count == 1 { 0 } else { chance.below(count) };
    let one = view(first);
    if one.share != Share::Whole {
        return None;
    }
    let (index, in_flight) = if count == 1 {
        (first, one.in_flight)
    } else {
        let second = (first + 1 + chance.below(count - 1)) % count;
        let other = view(second);
        if other.share != Share::Whole {
            return None;
        }
        if other.in_flight < one.in_flight {
            (second, other.in_flight)
        } else {
            (first, one.in_flight)
        }
    };
    (in_flight < bounds.max_in_flight).then_some(index)
}

struct Field<'a, V, C> {
    count: usize,
    view: V,
    tried: &'a Tried,
    chance: &'a mut C,
}

/// What is used, in this order, once all instances in use have been tried.
const LAST_RESORTS: [Share; 2] = [Share::Ejected, Share::New { reachable: true }];

impl<V: Fn(usize) -> Candidate, C: Chance> Field<'_, V, C> {
    fn choose(mut self, bounds: Bounds) -> Result<Chosen, NoChoice> {
        let used = self.how_many(Share::is_used);
        let counted = self.how_many(|share| !share.is_new());
        let panic = used * 100 < bounds.panic_percent * counted;
        let admits = |share: Share| share.is_used() || (panic && share == Share::Ejected);
        let mut chosen = self.draw(admits, bounds);
        for resort in LAST_RESORTS {
            if chosen == Err(NoChoice::None) {
                chosen = self.draw(|share| share == resort, bounds);
            }
        }
        if chosen == Err(NoChoice::None) { self.trial() } else { chosen }
    }

    fn how_many(&self, counts: impl Fn(Share) -> bool) -> usize {
        (0..self.count).filter(|at| counts((self.view)(*at).share)).count()
    }

    /// The less loaded of two random ones, each drawn in proportion to its share.
    fn draw(&mut self, admits: impl Fn(Share) -> bool, bounds: Bounds) -> Result<Chosen, NoChoice> {
        let is_member =
            |field: &Self, at: usize| !field.tried.contains(at) && admits((field.view)(at).share);
        let members = (0..self.count).filter(|at| is_member(self, *at)).count();
        if members == 0 {
            return Err(NoChoice::None);
        }
        let mut best: Option<(usize, u32)> = None;
        for _ in 0..2 {
            let at = self.draw_one(members, &is_member);
            let in_flight = (self.view)(at).in_flight;
            if best.is_none_or(|(_, least)| in_flight < least) {
                best = Some((at, in_flight));
            }
        }
        if best.is_none_or(|(_, least)| least >= bounds.max_in_flight) {
            let all = (0..self.count).filter(|at| is_member(self, *at));
            best = all.map(|at| (at, (self.view)(at).in_flight)).min_by_key(|(_, least)| *least);
        }
        match best {
            Some((at, least)) if least < bounds.max_in_flight => Ok(Chosen::Normal(at)),
            _ => Err(NoChoice::Full),
        }
    }

    fn draw_one(&mut self, members: usize, is_member: &impl Fn(&Self, usize) -> bool) -> usize {
        // One with a small share is skipped a few times at most: it may be the only one.
        const DRAWS: usize = 8;
        let mut drawn = 0;
        for _ in 0..DRAWS {
            let nth = self.chance.below(members);
            drawn = (0..self.count).filter(|at| is_member(self, *at)).nth(nth).unwrap_or(drawn);
            match (self.view)(drawn).share {
                Share::Part(part) if self.chance.fraction() >= part => {}
                _ => break,
            }
        }
        drawn
    }

    fn trial(&mut self) -> Result<Chosen, NoChoice> {
        let start = self.chance.below(self.count);
        let untried = (0..self.count).map(|step| (start + step) % self.count);
        let mut untried = untried.filter(|at| !self.tried.contains(*at)).peekable();
        if untried.peek().is_none() {
            return Err(NoChoice::None);
        }
        let free = untried.find(|at| !(self.view)(*at).on_trial);
        free.map(Chosen::Trial).ok_or(NoChoice::Open)
    }
}

#[cfg(test)]
pub(super) mod tests;

use super::*;
use crate::labels::LookupKind;
use crate::telemetry::Metrics;
use std::collections::HashSet;
use std::sync::Mutex;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio::time::sleep;

/// A table that tests write, a counter of queries, and a gate that holds a query up after it has
/// read.
#[derive(Default)]
struct Table {
    rows: Mutex<HashMap<u32, &'static str>>,
    queries: Mutex<Vec<Vec<u32>>>,
    away: AtomicBool,
    /// It has no row at all.
    empty: AtomicBool,
    /// Keys whose rows the database cannot read.
    unreadable: Mutex<HashSet<u32>>,
    held: AtomicBool,
    gate: Option<Semaphore>,
}

struct Scene {
    table: Arc<Table>,
    directory: Arc<Directory<u32, &'static str>>,
    feed: Arc<Feed>,
}

const RULES: CachePolicy = CachePolicy {
    ttl: Duration::from_secs(300),
    absence_ttl: Duration::from_secs(5),
    stale_max_age: Duration::from_secs(3600),
    entries: 1000,
    read_timeout: Duration::from_secs(5),
};

fn scene() -> Scene {
    let table = Arc::new(Table { gate: Some(Semaphore::new(0)), ..Table::default() });
    let feed = Arc::new(Feed::default());
    feed.begin();
    let metrics = Metrics::register().directory(LookupKind::Session);
    let (directory, queue) = Directory::new("test", RULES, Arc::clone(&feed), metrics);
    let directory = Arc::new(directory);
    tokio::spawn({
        let (directory, table) = (Arc::clone(&directory), Arc::clone(&table));
        async move {
            let read = |keys: Vec<u32>| {
                let table = Arc::clone(&table);
                async move { table.read(keys).await }
            };
            directory.run(queue, read, CancellationToken::new()).await;
        }
    });
    Scene { table, directory, feed }
}

impl Table {
    async fn read(&self, keys: Vec<u32>) -> Result<HashMap<u32, &'static str>, StoreError> {
        self.queries.lock().unwrap().push(keys.clone());
        if self.away.load(Ordering::Relaxed) {
            return Err(StoreError::Unavailable("away".to_owned()));
        }
        if self.empty.load(Ordering::Relaxed) {
            return Err(StoreError::Empty("test"));
        }
        if keys.iter().any(|key| self.unreadable.lock().unwrap().contains(key)) {
            return Err(StoreError::Refused("no UUID".to_owned()));
        }
        let rows = self.rows.lock().unwrap().clone();
        if self.held.load(Ordering::Relaxed) {
            self.gate.as_ref().unwrap().acquire().await.unwrap().forget();
        }
        Ok(keys.iter().filter_map(|key| Some((*key, *rows.get(key)?))).collect())
    }

    fn set(&self, key: u32, value: &'static str) {
        self.rows.lock().unwrap().insert(key, value);
    }

    fn count(&self) -> usize {
        self.queries.lock().unwrap().len()
    }
}

impl Scene {
    async fn value(&self, key: u32) -> Option<&'static str> {
        self.directory.find(&key).await.unwrap().value
    }

    /// Asks for some keys, which go into one query.
    async fn together(
        &self,
        keys: std::ops::Range<u32>,
    ) -> Vec<Result<Option<&'static str>, Unavailable>> {
        self.table.held.store(true, Ordering::Relaxed);
        let first = self.ask(0);
        self.settle().await;
        let asked: Vec<_> = keys
            .map(|key| {
                let directory = Arc::clone(&self.directory);
                tokio::spawn(async move { directory.find(&key).await.map(|found| found.value) })
            })
            .collect();
        self.settle().await;
        self.table.held.store(false, Ordering::Relaxed);
        self.table.gate.as_ref().unwrap().add_permits(1);
        first.await.unwrap();
        let mut values = Vec::new();
        for asked in asked {
            values.push(asked.await.unwrap());
        }
        values
    }

    fn ask(&self, key: u32) -> JoinHandle<Option<&'static str>> {
        let directory = Arc::clone(&self.directory);
        tokio::spawn(async move { directory.find(&key).await.unwrap().value })
    }

    /// Lets whoever waits get as far as they can.
    async fn settle(&self) {
        sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_key_is_read_once_and_remembered() {
    let scene = scene();
    scene.table.set(1, "one");
    assert_eq!(scene.value(1).await, Some("one"));
    assert_eq!(scene.value(1).await, Some("one"));
    assert_eq!(scene.table.count(), 1);
    sleep(RULES.ttl).await;
    assert_eq!(scene.value(1).await, Some("one"));
    assert_eq!(scene.table.count(), 2);
}

#[tokio::test(start_paused = true)]
async fn absence_is_remembered_for_a_short_time() {
    let scene = scene();
    assert_eq!(scene.value(1).await, None);
    assert_eq!(scene.value(1).await, None);
    assert_eq!(scene.table.count(), 1);
    scene.table.set(1, "one");
    sleep(RULES.absence_ttl).await;
    assert_eq!(scene.value(1).await, Some("one"));
}

#[tokio::test(start_paused = true)]
async fn everybody_waits_for_one_reading_and_the_next_one_takes_all_that_came_meanwhile() {
    let scene = scene();
    for key in 0..50 {
        scene.table.set(key, "there");
    }
    scene.table.held.store(true, Ordering::Relaxed);
    let first: Vec<_> = (0..20).map(|_| scene.ask(0)).collect();
    scene.settle().await;
    let others: Vec<_> = (1..50).map(|key| scene.ask(key)).collect();
    scene.settle().await;
    scene.table.gate.as_ref().unwrap().add_permits(2);
    for asked in first.into_iter().chain(others) {
        assert_eq!(asked.await.unwrap(), Some("there"));
    }
    let queries = scene.table.queries.lock().unwrap();
    assert_eq!(queries.iter().map(Vec::len).collect::<Vec<_>>(), [1, 49]);
}

// The reading has seen the row before the change, and ends after it.
#[tokio::test(start_paused = true)]
async fn a_change_during_a_reading_is_not_lost() {
    let scene = scene();
    scene.table.set(1, "member");
    scene.table.held.store(true, Ordering::Relaxed);
    let asked = scene.ask(1);
    scene.settle().await;
    scene.table.set(1, "ex-member");
    scene.directory.invalidate(&1);
    scene.table.gate.as_ref().unwrap().add_permits(2);
    assert_eq!(asked.await.unwrap(), Some("ex-member"));
    assert_eq!(scene.value(1).await, Some("ex-member"));
    assert_eq!(scene.table.count(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_change_forgets_what_was_remembered() {
    let scene = scene();
    scene.table.set(1, "member");
    assert_eq!(scene.value(1).await, Some("member"));
    scene.table.set(1, "ex-member");
    scene.directory.invalidate(&1);
    assert_eq!(scene.value(1).await, Some("ex-member"));
    scene.table.set(1, "member again");
    scene.directory.invalidate_all();
    assert_eq!(scene.value(1).await, Some("member again"));
}

#[tokio::test(start_paused = true)]
async fn after_a_lost_connection_everything_is_read_again() {
    let scene = scene();
    scene.table.set(1, "member");
    assert_eq!(scene.value(1).await, Some("member"));
    scene.feed.end();
    scene.table.set(1, "ex-member");
    scene.feed.begin();
    assert_eq!(scene.value(1).await, Some("ex-member"));
}

#[tokio::test(start_paused = true)]
async fn while_changes_are_not_heard_of_nothing_is_believed_for_long() {
    let scene = scene();
    scene.table.set(1, "member");
    assert_eq!(scene.value(1).await, Some("member"));
    scene.feed.end();
    scene.table.set(1, "ex-member");
    sleep(UNWATCHED_TTL).await;
    assert_eq!(scene.value(1).await, Some("ex-member"));
}

#[tokio::test(start_paused = true)]
async fn what_is_known_is_used_while_the_database_is_away_and_strangers_are_told_so() {
    let scene = scene();
    scene.table.set(1, "member");
    assert_eq!(scene.value(1).await, Some("member"));
    scene.feed.end();
    scene.table.away.store(true, Ordering::Relaxed);
    sleep(Duration::from_secs(60)).await;
    for _ in 0..100 {
        let found = scene.directory.find(&1).await.unwrap();
        assert_eq!(found.value, Some("member"));
        assert!(matches!(found.origin, Origin::Stale(_)));
    }
    assert_eq!(scene.directory.find(&2).await.unwrap_err(), Unavailable);
    // It is asked again now and then, and not by each request.
    assert!(scene.table.count() < 5, "{}", scene.table.count());
    sleep(RULES.stale_max_age).await;
    assert_eq!(scene.directory.find(&1).await.unwrap_err(), Unavailable);
    scene.table.away.store(false, Ordering::Relaxed);
    scene.feed.begin();
    sleep(REST).await;
    assert_eq!(scene.value(1).await, Some("member"));
}

// A known change is never undone by an outage that follows it.
#[tokio::test(start_paused = true)]
async fn what_has_changed_is_not_used_while_the_database_is_away() {
    let scene = scene();
    scene.table.set(1, "member");
    assert_eq!(scene.value(1).await, Some("member"));
    scene.directory.invalidate(&1);
    scene.table.away.store(true, Ordering::Relaxed);
    assert_eq!(scene.directory.find(&1).await.unwrap_err(), Unavailable);
}

// An organisation's entry expires whenever one of its rules changes: no outage that follows may cost
// its operator data. What was absent is no value to go on with.
#[tokio::test(start_paused = true)]
async fn what_has_expired_is_read_again_and_used_while_the_database_is_away() {
    for all in [false, true] {
        let scene = scene();
        scene.table.set(1, "there");
        assert_eq!(scene.value(1).await, Some("there"));
        assert_eq!(scene.value(2).await, None);
        let expire = |key| {
            if all { scene.directory.expire_all() } else { scene.directory.expire(&key) }
        };
        expire(1);
        scene.table.set(1, "changed");
        assert_eq!(scene.value(1).await, Some("changed"));
        expire(1);
        expire(2);
        scene.table.away.store(true, Ordering::Relaxed);
        assert_eq!(scene.value(1).await, Some("changed"));
        assert_eq!(scene.directory.find(&2).await.unwrap_err(), Unavailable);
        scene.table.away.store(false, Ordering::Relaxed);
        scene.table.rows.lock().unwrap().remove(&1);
        sleep(REST).await;
        scene.directory.find(&1).await.unwrap();
        settle_until_absent(&scene).await;
    }
}

async fn settle_until_absent(scene: &Scene) {
    for _ in 0..100 {
        if scene.value(1).await.is_none() {
            return;
        }
        sleep(REST).await;
    }
    panic!("an expired entry is never read again");
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_strangers_pushes_nobody_out() {
    let scene = scene();
    scene.table.set(1, "member");
    assert_eq!(scene.value(1).await, Some("member"));
    for stranger in 1000..30_000 {
        assert_eq!(scene.value(stranger).await, None);
    }
    let before = scene.table.count();
    assert_eq!(scene.value(1).await, Some("member"));
    assert_eq!(scene.table.count(), before);
}

// The connection that listens sees first that the database is away: what is known goes on at once,
// and strangers are told so at once, without a single reading that has to fail first.
#[tokio::test(start_paused = true)]
async fn nobody_waits_for_a_database_that_is_known_to_be_away() {
    let scene = scene();
    scene.table.set(1, "member");
    assert_eq!(scene.value(1).await, Some("member"));
    scene.feed.end();
    scene.feed.note_away(true);
    // Readings hang from now on.
    scene.table.held.store(true, Ordering::Relaxed);
    sleep(Duration::from_secs(60)).await;
    let began = Instant::now();
    for _ in 0..100 {
        assert!(matches!(scene.directory.find(&1).await.unwrap().origin, Origin::Stale(_)));
        assert_eq!(scene.directory.find(&2).await.unwrap_err(), Unavailable);
    }
    assert_eq!(began.elapsed(), Duration::ZERO);
    // It is tried again, which is how it shows that it is back.
    scene.settle().await;
    assert_eq!(scene.table.count(), 2);
    scene.table.gate.as_ref().unwrap().add_permits(1000);
    scene.settle().await;
    assert!(!scene.feed.is_away());
    assert_eq!(scene.directory.find(&2).await.unwrap().value, None);
}

// Before it is clear that the database is away: a second at most where something is known.
#[tokio::test(start_paused = true)]
async fn who_is_known_waits_for_a_second_at_most() {
    let scene = scene();
    scene.table.set(1, "member");
    assert_eq!(scene.value(1).await, Some("member"));
    scene.feed.end();
    scene.table.held.store(true, Ordering::Relaxed);
    sleep(Duration::from_secs(60)).await;
    let began = Instant::now();
    assert!(matches!(scene.directory.find(&1).await.unwrap().origin, Origin::Stale(_)));
    assert!(began.elapsed() <= STALE_READ_TIMEOUT, "{:?}", began.elapsed());
}

// One kind of thing that cannot be reached is enough: the others need not find out by themselves.
#[tokio::test(start_paused = true)]
async fn a_reading_that_cannot_reach_the_database_speaks_for_all_kinds() {
    let scene = scene();
    let error = StoreError::Unreachable("refused".to_owned());
    let (_asked, mut queue) = mpsc::unbounded_channel();
    scene.directory.fail(&mut queue, &error, scene.feed.epoch());
    assert!(scene.feed.is_away());
    scene.feed.begin();
    let error = StoreError::Unavailable("slow".to_owned());
    scene.directory.fail(&mut queue, &error, scene.feed.epoch());
    assert!(!scene.feed.is_away());
}

// Seen: a UUID that is none, in a table of the operator's, was an outage for everybody who was not
// remembered, for as long as somebody repeated its key.
#[tokio::test(start_paused = true)]
async fn a_row_that_cannot_be_read_takes_no_other_with_it() {
    let scene = scene();
    for key in 0..50 {
        scene.table.set(key, "there");
    }
    scene.table.unreadable.lock().unwrap().insert(7);
    for (key, value) in (1..50).zip(scene.together(1..50).await) {
        assert_eq!(value, if key == 7 { Err(Unavailable) } else { Ok(Some("there")) }, "{key}");
    }
    // Its key fails alone, and is not asked for each time.
    let before = scene.table.count();
    assert!(before < 20, "{before}");
    for _ in 0..100 {
        assert_eq!(scene.directory.find(&7).await.unwrap_err(), Unavailable);
    }
    assert_eq!(scene.table.count(), before);
    scene.table.set(60, "there");
    assert_eq!(scene.value(60).await, Some("there"));
    assert!(!scene.directory.failing.load(Ordering::Relaxed));
    scene.table.unreadable.lock().unwrap().clear();
    sleep(UNREADABLE_REST).await;
    assert_eq!(scene.value(7).await, Some("there"));
}

// Not a row is at fault but the query, or a column of all rows: each key alone would be a query.
#[tokio::test(start_paused = true)]
async fn a_query_that_can_read_no_row_is_an_outage() {
    let scene = scene();
    scene.table.set(0, "there");
    scene.table.unreadable.lock().unwrap().extend(1..1000);
    let values = scene.together(1..1000).await;
    assert!(values.iter().all(|value| *value == Err(Unavailable)));
    assert!(scene.table.count() < 100, "{}", scene.table.count());
    assert!(scene.directory.failing.load(Ordering::Relaxed));
    assert_eq!(scene.value(0).await, Some("there"));
}

// A member was removed with the last row, and no change was told: what they had must not count as stale.
#[tokio::test(start_paused = true)]
async fn of_an_empty_table_nothing_is_known_and_nothing_remembered() {
    let scene = scene();
    scene.table.set(1, "member");
    assert_eq!(scene.value(1).await, Some("member"));
    scene.table.empty.store(true, Ordering::Relaxed);
    sleep(RULES.ttl).await;
    for key in [1, 2] {
        assert_eq!(scene.directory.find(&key).await.map(|found| found.value), Err(Unavailable));
    }
    scene.table.empty.store(false, Ordering::Relaxed);
    assert_eq!(scene.value(1).await, Some("member"), "the first row ends it");
    scene.table.empty.store(true, Ordering::Relaxed);
    sleep(RULES.ttl).await;
    assert_eq!(scene.directory.find(&1).await.map(|found| found.value), Err(Unavailable));
    scene.table.away.store(true, Ordering::Relaxed);
    assert_eq!(scene.directory.find(&1).await.map(|found| found.value), Err(Unavailable));
}

// Made-up device keys, each of whose requests is reset after a moment: what is left of a flood waited before genuine
// keys.
#[tokio::test(start_paused = true)]
async fn a_key_for_which_nobody_waits_any_more_is_not_read() {
    let scene = scene();
    scene.table.set(5000, "there");
    scene.table.held.store(true, Ordering::Relaxed);
    let first = scene.ask(0);
    scene.settle().await;
    let flood: Vec<_> = (1..5000).map(|key| scene.ask(key)).collect();
    scene.settle().await;
    flood.iter().for_each(JoinHandle::abort);
    let genuine = scene.ask(5000);
    scene.settle().await;
    scene.table.gate.as_ref().unwrap().add_permits(2);
    assert_eq!(genuine.await.unwrap(), Some("there"));
    first.await.unwrap();
    assert_eq!(*scene.table.queries.lock().unwrap(), [[0], [5000]]);
}

// A request with a value waits for a second. A later request gets the new one, however slow the database is.
#[tokio::test(start_paused = true)]
async fn a_known_key_is_read_although_nobody_waits_any_more() {
    let scene = scene();
    scene.table.set(1, "member");
    assert_eq!(scene.value(1).await, Some("member"));
    sleep(RULES.ttl).await;
    scene.table.set(1, "still a member");
    scene.table.held.store(true, Ordering::Relaxed);
    let first = scene.ask(0);
    scene.settle().await;
    let found = scene.directory.find(&1).await.unwrap();
    assert!(matches!(found.origin, Origin::Stale(_)), "{found:?}");
    scene.table.gate.as_ref().unwrap().add_permits(2);
    first.await.unwrap();
    scene.settle().await;
    assert_eq!(scene.table.count(), 3);
    assert_eq!(scene.value(1).await, Some("still a member"));
    assert_eq!(scene.table.count(), 3);
}

#[tokio::test(start_paused = true)]
async fn above_so_many_keys_nobody_waits() {
    let scene = scene();
    scene.table.held.store(true, Ordering::Relaxed);
    let first = scene.ask(0);
    scene.settle().await;
    let most = u32::try_from(flights::MOST).unwrap();
    let flood: Vec<_> = (1..most).map(|key| scene.ask(key)).collect();
    scene.settle().await;
    let began = Instant::now();
    assert_eq!(scene.directory.find(&most).await.unwrap_err(), Unavailable);
    assert_eq!(began.elapsed(), Duration::ZERO);
    // It is over with the reading that is under way.
    flood.iter().for_each(JoinHandle::abort);
    scene.table.held.store(false, Ordering::Relaxed);
    scene.table.gate.as_ref().unwrap().add_permits(1);
    first.await.unwrap();
    scene.settle().await;
    assert_eq!(scene.value(most).await, None);
}

// `Instant` stands still while the machine is suspended: what was read before was fresh after days.
#[tokio::test(start_paused = true)]
async fn what_was_read_before_a_suspension_is_read_again_and_as_old_as_it_is() {
    let scene = scene();
    scene.table.set(1, "member");
    assert_eq!(scene.value(1).await, Some("member"));
    scene.table.set(1, "removed meanwhile");
    clock::suspend(Duration::from_secs(10));
    assert_eq!(scene.value(1).await, Some("removed meanwhile"));
    scene.table.away.store(true, Ordering::Relaxed);
    clock::suspend(RULES.stale_max_age.saturating_sub(Duration::from_secs(5)));
    assert!(matches!(scene.directory.find(&1).await.unwrap().origin, Origin::Stale(_)));
    clock::suspend(Duration::from_secs(10));
    assert!(scene.directory.find(&1).await.is_err());
}

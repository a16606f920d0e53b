//! One line for each part that is started, with its time.

use tokio::time::Instant;

/// Does something and says how long it took.
pub(crate) async fn step<T>(what: &str, work: impl Future<Output = T>) -> T {
    let began = Instant::now();
    let done = work.await;
    eprintln!("demo: {what:<52} {:>5.1} s", began.elapsed().as_secs_f64());
    done
}

//! `healthcheck`

use std::net::Ipv4Addr;
use std::time::Duration;

use super::{Outcome, on_a_runtime};
use crate::config::ListenConfig;
use crate::http_client;

/// Asks the running proxy's private port whether it is ready.
pub fn healthcheck(config: &ListenConfig) -> Outcome {
    let mut address = config.internal_address;
    if address.ip().is_unspecified() {
        address.set_ip(Ipv4Addr::LOCALHOST.into());
    }
    let answer = on_a_runtime(async move {
        let client = http_client::internal().timeout(Duration::from_secs(3)).build()?;
        let answer = client.get(format!("http://{address}/ready")).send().await?;
        let status = answer.status();
        Ok::<_, reqwest::Error>((status, answer.text().await?))
    })?;
    match answer {
        Ok((status, facts)) if status.is_success() => Ok(facts.trim_end().to_owned().into()),
        Ok((_, facts)) => Err(facts.trim_end().to_owned()),
        Err(error) => Err(format!("{address} does not answer: {error}")),
    }
}

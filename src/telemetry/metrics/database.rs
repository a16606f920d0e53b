//! What the database's metrics mean.

use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};

use super::READ_DURATION;

pub(super) fn describe() {
    describe_counter!(
        "mimir_tenant_proxy_directory_lookups_total",
        "Look-ups of members, device keys and sessions: cached, read, stale (the database is away), unavailable (503)."
    );
    describe_counter!(
        "mimir_tenant_proxy_directory_read_failures_total",
        "Queries to the database that failed."
    );
    describe_counter!(
        "mimir_tenant_proxy_directory_invalidations_total",
        "Changes in the database that were heard of."
    );
    describe_gauge!(
        "mimir_tenant_proxy_directory_entries",
        "Members, device keys and sessions remembered."
    );
    describe_histogram!(READ_DURATION, Unit::Seconds, "One query, for however many keys.");
    describe_gauge!(
        "mimir_tenant_proxy_database_listening",
        "1 while notifications of changes arrive, 0 while they do not; absent without a database."
    );
    describe_gauge!(
        "mimir_tenant_proxy_revocations",
        "Revocations in force; absent without a database."
    );
    describe_gauge!(
        "mimir_tenant_proxy_revocations_age_seconds",
        Unit::Seconds,
        "Time since the revocations were read; -1 if they never were; absent without a database."
    );
    describe_counter!(
        "mimir_tenant_proxy_revocation_read_failures_total",
        "Readings of the revocations that failed."
    );
    describe_counter!(
        "mimir_tenant_proxy_device_key_grace_uses_total",
        "Requests with a device key that has expired and works only by its grace: renew it."
    );
    describe_counter!(
        "mimir_tenant_proxy_device_key_backoffs_total",
        "Refusals of an unknown device key that were held back because its address had sent many."
    );
    describe_counter!(
        "mimir_tenant_proxy_device_key_last_used_failures_total",
        "Batches of last uses that could not be written; they go with the next."
    );
}

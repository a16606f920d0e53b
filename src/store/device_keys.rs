//! Keys of devices. Only their hashes are ever here.

use std::collections::HashMap;

use sqlx::Row as _;
use sqlx::postgres::PgRow;
use time::OffsetDateTime;
use uuid::Uuid;

use super::queries::{Lookup, Queries};
use super::{Store, StoreError, moment, statement};
use crate::tenancy::{DeviceId, OrganisationId, Scope, Scopes};

/// The SHA-256 of a key.
pub type KeyHash = [u8; 32];

/// What a key is, as it is enforced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceKeyRow {
    pub id: DeviceId,
    pub organisation: OrganisationId,
    pub name: String,
    /// What it may do; never `admin`.
    pub scopes: Scopes,
    /// When it expires, in seconds since the epoch.
    pub expires_at: Option<i64>,
    /// How long it works on after that, in seconds.
    pub grace_seconds: i64,
    pub is_revoked: bool,
}

#[derive(Clone, Debug)]
pub struct NewDeviceKey {
    pub organisation: OrganisationId,
    pub name: String,
    pub hash: KeyHash,
    /// By which its owner recognises it.
    pub hint: String,
    pub scopes: Scopes,
    pub expires_at: Option<OffsetDateTime>,
    /// How long it works on after that, in seconds; the table's default if none.
    pub grace_seconds: Option<i32>,
    pub created_by: String,
    /// Whether something other than our table proves that the organisation exists: a claim, or a
    /// query of the operator's. Its row is then made if it is missing.
    pub organisation_is_known: bool,
}

/// A key, as an administrator sees it.
#[derive(Clone, Debug)]
pub struct ListedDeviceKey {
    pub id: DeviceId,
    pub name: String,
    /// By which its owner recognises it.
    pub hint: String,
    pub scopes: Scopes,
    pub expires_at: Option<OffsetDateTime>,
    /// How long it works on after that, in seconds.
    pub grace_seconds: i32,
    pub revoked_at: Option<OffsetDateTime>,
    /// When it was last used, to within a minute or so.
    pub last_used_at: Option<OffsetDateTime>,
    pub created_at: Option<OffsetDateTime>,
    pub created_by: String,
}

/// Which keys of an organisation are wanted.
#[derive(Clone, Debug)]
pub struct DeviceKeysWanted {
    /// A part of the name, the hint, the identifier or a scope; all if empty.
    pub filter: String,
    /// Only those that are listed after this one.
    pub after: Option<DeviceId>,
    pub limit: usize,
}

/// The most keys of an organisation that the command line lists, and the most that it may have unrevoked.
pub const MOST_KEYS: usize = 10_000;

/// What is shown of a key.
fn listed() -> String {
    let times = ["expires_at", "revoked_at", "last_used_at", "created_at"].map(moment::select);
    format!("id, name, key_hint, scopes, grace_seconds, created_by, {}", times.join(", "))
}

impl Store {
    /// The keys with these hashes. A hash without a key is left out. A key whose row cannot be read is
    /// there with `None`: that is our fault and not the device's.
    pub async fn device_keys(
        &self,
        hashes: Vec<KeyHash>,
    ) -> Result<HashMap<KeyHash, Option<DeviceKeyRow>>, StoreError> {
        let hashes: Vec<Vec<u8>> = hashes.iter().map(|hash| hash.to_vec()).collect();
        let sql = |queries: &Queries| queries.of(Lookup::DeviceKey).to_owned();
        self.look_up(
            sql,
            |query| query.bind(hashes),
            |rows| {
                let mut found = HashMap::with_capacity(rows.len());
                for row in &rows {
                    let Some(hash) = read_hash(row) else { continue };
                    let key = read(row);
                    if let Err(problem) = &key {
                        tracing::warn!(problem, "Invalid device key row skipped");
                    }
                    found.insert(hash, key.ok());
                }
                Ok(found)
            },
        )
        .await
    }

    /// Whether there is any key at all. A query of the operator's cannot be asked that: it is taken for
    /// granted then.
    pub async fn has_device_keys(&self) -> Result<bool, StoreError> {
        if self.0.config.queries.device_key.is_some() {
            return Ok(true);
        }
        let table = self.table("device_key")?;
        self.has_rows(move |_| table).await
    }

    pub async fn create_device_key(
        &self,
        new: NewDeviceKey,
    ) -> Result<ListedDeviceKey, StoreError> {
        if new.organisation_is_known {
            let table = self.table("organisation")?;
            let sql = format!("insert into {table} (id) values ($1) on conflict do nothing");
            self.execute(statement(sql).bind(new.organisation.as_str())).await?;
        }
        let scopes: Vec<&str> = new.scopes.names().collect();
        let table = self.table("device_key")?;
        let sql = format!(
            "insert into {table} (organisation_id, name, key_hash, key_hint, scopes, expires_at, \
             grace_seconds, created_by) \
             select $1, $2, $3, $4, $5, $6, coalesce($7, 604800), $8 \
             where (select count(*) from {table} where organisation_id = $1 and revoked_at is null) < {MOST_KEYS} \
             returning {}",
            listed()
        );
        let query = statement(sql)
            .bind(new.organisation.as_str())
            .bind(&new.name)
            .bind(new.hash.as_slice())
            .bind(&new.hint)
            .bind(scopes)
            .bind(new.expires_at)
            .bind(new.grace_seconds)
            .bind(&new.created_by);
        self.fetch(query, |rows| Ok(read_listed(rows.first().ok_or(StoreError::Full(MOST_KEYS))?)?))
            .await
    }

    /// The keys of an organisation, the newest first.
    pub async fn list_device_keys(
        &self,
        organisation: &OrganisationId,
        wanted: DeviceKeysWanted,
    ) -> Result<Vec<ListedDeviceKey>, StoreError> {
        let table = self.table("device_key")?;
        let last =
            format!("(select created_at from {table} where organisation_id = $1 and id = $2)");
        let sql = format!(
            "select {} from {table} as key where organisation_id = $1 \
             and ($2::uuid is null or key.created_at < {last} or key.created_at = {last} and key.id > $2) \
             and ($3 = '' or position(lower($3) in lower(concat_ws(' ', key.name, key.key_hint, key.id, \
             array_to_string(key.scopes, ' ')))) > 0) \
             order by key.created_at desc, key.id limit $4",
            listed()
        );
        let query = statement(sql)
            .bind(organisation.as_str())
            .bind(wanted.after.map(|last| last.0))
            .bind(wanted.filter)
            .bind(i64::try_from(wanted.limit).unwrap_or(i64::MAX));
        self.fetch(query, |rows| {
            rows.iter().map(|row| read_listed(row).map_err(StoreError::from)).collect()
        })
        .await
    }

    pub async fn find_device_key(
        &self,
        organisation: &OrganisationId,
        id: DeviceId,
    ) -> Result<Option<ListedDeviceKey>, StoreError> {
        let table = self.table("device_key")?;
        let listed = listed();
        let query = format!("select {listed} from {table} where organisation_id = $1 and id = $2");
        self.one_key(query, organisation, id).await
    }

    /// Revokes a key of an organisation; the time of the first revocation stays. None if the
    /// organisation has no such key.
    pub async fn revoke_device_key(
        &self,
        organisation: &OrganisationId,
        id: DeviceId,
    ) -> Result<Option<ListedDeviceKey>, StoreError> {
        let table = self.table("device_key")?;
        let listed = listed();
        let query = format!(
            "update {table} set revoked_at = coalesce(revoked_at, now()) \
             where organisation_id = $1 and id = $2 returning {listed}"
        );
        self.one_key(query, organisation, id).await
    }

    /// Asks about the key `$2` of the organisation `$1`.
    async fn one_key(
        &self,
        query: String,
        organisation: &OrganisationId,
        id: DeviceId,
    ) -> Result<Option<ListedDeviceKey>, StoreError> {
        let query = statement(query).bind(organisation.as_str()).bind(id.0);
        self.fetch(query, |rows| Ok(rows.first().map(read_listed).transpose()?)).await
    }

    /// Notes when keys were last used (seconds since the epoch). A later time is never overwritten
    /// by an earlier one of another copy.
    pub async fn note_uses(&self, mut uses: Vec<(DeviceId, i64)>) -> Result<(), StoreError> {
        if self.0.config.queries.device_key.is_some() {
            // The keys are in a table that we know nothing of.
            return Ok(());
        }
        // In one order, so that two copies do not wait for each other's rows.
        uses.sort_by_key(|(device, _)| device.0);
        let (ids, times): (Vec<Uuid>, Vec<f64>) =
            uses.iter().map(|(id, at)| (id.0, precise(*at))).unzip();
        let sql = format!(
            "update {} as key set last_used_at = to_timestamp(used.at) \
             from unnest($1::uuid[], $2::float8[]) as used(id, at) \
             where key.id = used.id \
             and (key.last_used_at is null or key.last_used_at < to_timestamp(used.at))",
            self.table("device_key")?
        );
        self.execute(statement(sql).bind(ids).bind(times)).await
    }
}

/// Seconds since the epoch fit exactly for the next hundred million years.
#[expect(clippy::cast_precision_loss, reason = "within 2^53")]
fn precise(seconds: i64) -> f64 {
    seconds as f64
}

/// What a device may do by the names in its row. A name that is none is left out, and so are `admin`
/// and `alerts:write`: a device administers and silences nothing, whatever its row says.
fn scopes(names: &[String]) -> Scopes {
    let known = names.iter().filter_map(|name| Scopes::parse_one(name).ok());
    known.collect::<Scopes>().intersection(Scope::DEVICE.into_iter().collect())
}

fn read_hash(row: &PgRow) -> Option<KeyHash> {
    row.try_get::<&[u8], _>("key_hash").ok()?.try_into().ok()
}

fn read(row: &PgRow) -> Result<DeviceKeyRow, String> {
    let wrong = |error: sqlx::Error| error.to_string();
    let id = DeviceId(row.try_get("id").map_err(wrong)?);
    let organisation: &str = row.try_get("organisation_id").map_err(wrong)?;
    let organisation =
        OrganisationId::parse(organisation).map_err(|error| format!("key {id}: {error}"))?;
    let names: Vec<String> = row.try_get("scopes").map_err(wrong)?;
    // No name says that the key may do nothing; a name that is none says nothing.
    if !names.is_empty() && names.iter().all(|name| Scopes::parse_one(name).is_err()) {
        let some = &names[..names.len().min(5)];
        return Err(format!("key {id}: there are no such scopes: {some:?}"));
    }
    let expires_at: Option<f64> = row.try_get("expires_at").map_err(wrong)?;
    let grace: Option<i32> = row.try_get("grace_seconds").map_err(wrong)?;
    let revoked_at: Option<f64> = row.try_get("revoked_at").map_err(wrong)?;
    let name: Option<String> = row.try_get("name").map_err(wrong)?;
    Ok(DeviceKeyRow {
        id,
        organisation,
        name: name.unwrap_or_default(),
        scopes: scopes(&names),
        expires_at: moment::seconds(expires_at),
        grace_seconds: i64::from(grace.unwrap_or(0).max(0)),
        is_revoked: revoked_at.is_some(),
    })
}

fn read_listed(row: &PgRow) -> Result<ListedDeviceKey, sqlx::Error> {
    let names: Vec<String> = row.try_get("scopes")?;
    Ok(ListedDeviceKey {
        id: DeviceId(row.try_get("id")?),
        name: row.try_get("name")?,
        hint: row.try_get("key_hint")?,
        scopes: scopes(&names),
        expires_at: moment::shown(row.try_get("expires_at")?),
        grace_seconds: row.try_get("grace_seconds")?,
        revoked_at: moment::shown(row.try_get("revoked_at")?),
        last_used_at: moment::shown(row.try_get("last_used_at")?),
        created_at: moment::shown(row.try_get("created_at")?),
        created_by: row.try_get("created_by")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_never_administers_and_never_silences() {
        let names = ["admin", "metrics:write", "alerts:write", "alerts:read", "metrics:everything"];
        let scopes_of =
            |names: &[&str]| scopes(&names.iter().map(ToString::to_string).collect::<Vec<_>>());
        assert_eq!(scopes_of(&names).names().collect::<Vec<_>>(), ["metrics:write", "alerts:read"]);
        assert!(scopes(&["admin".to_owned()]).is_empty());
    }
}

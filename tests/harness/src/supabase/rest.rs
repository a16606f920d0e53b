//! Tables over HTTP as PostgREST has them: one transaction for each request, as the token's role.

use bytes::Bytes;
use http::{HeaderValue, Method, StatusCode};
use serde_json::{Value, json};
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Error};

use super::auth::Unknown;
use super::statement::{Query, Text, Unclear, quote};
use super::{Asked, Project, refusal};
use crate::http_server::Answer;

/// PostgREST allows for clocks that differ.
const LEEWAY: u64 = 30;

/// Asks for one row as an object, and not for a list.
const OBJECT: &str = "application/vnd.pgrst.object+json";

pub(super) async fn answer(project: &Project, table: &str, asked: &Asked) -> Answer {
    match Work::begin(project, table, asked).await {
        Ok(work) => work.run().await.unwrap_or_else(|refused| refused),
        Err(refused) => refused,
    }
}

/// A request in its transaction. Dropped before it is committed, it changes nothing.
struct Work<'a> {
    asked: &'a Asked,
    table: String,
    /// Of the table, as the schema cache has them.
    columns: Vec<String>,
    client: Client,
    is_anonymous: bool,
}

/// What a statement has answered.
struct Rows {
    json: String,
    count: i64,
}

impl<'a> Work<'a> {
    async fn begin(project: &Project, table: &str, asked: &'a Asked) -> Result<Self, Answer> {
        let bearer = asked.bearer();
        let is_anonymous = bearer.is_empty() || bearer == project.anon_key;
        let claims = if is_anonymous {
            json!({ "role": "anon" })
        } else {
            project.auth.claims(bearer, LEEWAY).map_err(|why| match why {
                Unknown::Invalid => said(401, "PGRST301", "No suitable key or wrong key type"),
                Unknown::Expired => said(401, "PGRST303", "JWT expired"),
            })?
        };
        let client =
            project.database.connect().await.map_err(|error| {
                said(503, "PGRST001", &format!("Database client error: {error}"))
            })?;
        let columns =
            columns_of(&client, table).await.map_err(|error| failed(&error, is_anonymous))?;
        if columns.is_empty() {
            let text = format!("Could not find the table 'public.{table}' in the schema cache");
            return Err(said(404, "PGRST205", &text));
        }
        let role = if is_anonymous { "anon" } else { "authenticated" };
        let begin = format!("begin; set local role {role}");
        let begun = async {
            client.batch_execute(&begin).await?;
            let claims = Text(claims.to_string());
            client.query("select set_config('request.jwt.claims', $1, true)", &[&claims]).await
        };
        begun.await.map_err(|error| failed(&error, is_anonymous))?;
        Ok(Self { asked, table: table.to_owned(), columns, client, is_anonymous })
    }

    async fn run(self) -> Result<Answer, Answer> {
        let query = Query::parse(&self.table, &self.asked.query);
        let query = query.map_err(|Unclear(text)| said(400, "PGRST100", &text))?;
        let answer = match self.asked.method {
            Method::GET | Method::HEAD => self.select(query).await?,
            Method::POST => self.insert(query).await?,
            Method::PATCH => self.update(query).await?,
            Method::DELETE => {
                let sql = format!("delete from {}{}", quote(&self.table), query.wheres());
                self.write(sql, &query, StatusCode::NO_CONTENT).await?
            }
            _ => return Err(said(405, "PGRST117", "Unsupported HTTP method")),
        };
        // Constraints that are deferred fail here.
        self.client
            .batch_execute("commit")
            .await
            .map_err(|error| failed(&error, self.is_anonymous))?;
        Ok(answer)
    }

    async fn select(&self, query: Query) -> Result<Answer, Answer> {
        let (table, wheres) = (quote(&self.table), query.wheres());
        let total = if self.prefers("count=exact") {
            let sql = format!("select count(*)::text, count(*) from {table}{wheres}");
            Some(self.query(&sql, &query.values).await?.count)
        } else {
            None
        };
        let sql =
            format!("select {} from {table}{wheres}{}", query.output(&self.table), query.page());
        let rows = self.rows(&sql, &query.values).await?;
        let last = i64::try_from(query.offset()).unwrap_or(i64::MAX).saturating_add(rows.count) - 1;
        let range =
            if rows.count == 0 { "*".to_owned() } else { format!("{}-{last}", query.offset()) };
        let of = total.map_or("*".to_owned(), |total| total.to_string());
        let is_part = total.is_some_and(|total| total > rows.count);
        let status = if is_part { StatusCode::PARTIAL_CONTENT } else { StatusCode::OK };
        let mut answer = self.shown(status, rows)?;
        let range = HeaderValue::from_str(&format!("{range}/{of}")).expect("a range");
        answer.headers_mut().insert("content-range", range);
        if self.asked.method == Method::HEAD {
            *answer.body_mut() = crate::http_server::answer(status, "", Bytes::new()).into_body();
        }
        Ok(answer)
    }

    async fn insert(&self, mut query: Query) -> Result<Answer, Answer> {
        let body = self.body()?;
        let rows = match body {
            Value::Array(rows) => rows,
            row => vec![row],
        };
        let written = if query.written.is_empty() { keys(&rows)? } else { query.written.clone() };
        self.known(&written)?;
        let columns = list(&written);
        let rows = query.value(Value::Array(rows).to_string());
        let table = quote(&self.table);
        let mut sql = format!(
            "insert into {table} ({columns}) select {columns} from json_populate_recordset(null::{table}, {rows}::json) as _"
        );
        if self.prefers("resolution=ignore-duplicates") {
            sql += " on conflict do nothing";
        } else if self.prefers("resolution=merge-duplicates") {
            let target = match query.on_conflict.is_empty() {
                true => self.primary_key().await?,
                false => query.on_conflict.clone(),
            };
            let set: Vec<String> =
                written.iter().map(|name| format!("{0} = excluded.{0}", quote(name))).collect();
            sql += &format!(" on conflict ({}) do update set {}", list(&target), set.join(", "));
        }
        self.write(sql, &query, StatusCode::CREATED).await
    }

    async fn update(&self, mut query: Query) -> Result<Answer, Answer> {
        let body = self.body()?;
        let written = keys(std::slice::from_ref(&body))?;
        self.known(&written)?;
        let row = query.value(body.to_string());
        let table = quote(&self.table);
        let set: Vec<String> =
            written.iter().map(|name| format!("{0} = _.{0}", quote(name))).collect();
        let sql = format!(
            "update {table} set {} from json_populate_record(null::{table}, {row}::json) as _{}",
            set.join(", "),
            query.wheres()
        );
        self.write(sql, &query, StatusCode::NO_CONTENT).await
    }

    /// Carries a change out. `plain` is the status without the rows.
    async fn write(&self, sql: String, query: &Query, plain: StatusCode) -> Result<Answer, Answer> {
        if !self.prefers("return=representation") {
            // Without a column: an author may write rows that they may not read.
            self.rows(&format!("{sql} returning 1"), &query.values).await?;
            return Ok(crate::http_server::answer(plain, "application/json", Bytes::new()));
        }
        let sql = format!("{sql} returning {}", query.output(&self.table));
        let rows = self.rows(&sql, &query.values).await?;
        let status = if plain == StatusCode::CREATED { plain } else { StatusCode::OK };
        self.shown(status, rows)
    }

    async fn rows(&self, sql: &str, values: &[Text]) -> Result<Rows, Answer> {
        let sql = format!(
            "with source as ({sql}) select coalesce(json_agg(source), '[]')::text, count(*) from source"
        );
        self.query(&sql, values).await
    }

    async fn query(&self, sql: &str, values: &[Text]) -> Result<Rows, Answer> {
        let values: Vec<&(dyn ToSql + Sync)> = values.iter().map(|value| value as _).collect();
        let rows = self.client.query_one(sql, &values).await;
        let row = rows.map_err(|error| failed(&error, self.is_anonymous))?;
        Ok(Rows { json: row.get(0), count: row.get(1) })
    }

    /// The rows as the client wants them.
    fn shown(&self, status: StatusCode, rows: Rows) -> Result<Answer, Answer> {
        if !self.asked.header("accept").contains(OBJECT) {
            return Ok(crate::http_server::answer(
                status,
                "application/json; charset=utf-8",
                rows.json,
            ));
        }
        if rows.count != 1 {
            let body = json!({
                "code": "PGRST116", "details": format!("The result contains {} rows", rows.count),
                "hint": null, "message": "Cannot coerce the result to a single JSON object",
            });
            return Err(refusal(StatusCode::NOT_ACCEPTABLE, &body));
        }
        // The text of the only element.
        let object = rows.json[1..rows.json.len() - 1].to_owned();
        Ok(crate::http_server::answer(status, OBJECT, object))
    }

    fn prefers(&self, what: &str) -> bool {
        let all =
            self.asked.headers.get_all("prefer").iter().filter_map(|value| value.to_str().ok());
        all.flat_map(|value| value.split(',')).any(|preference| preference.trim() == what)
    }

    fn body(&self) -> Result<Value, Answer> {
        serde_json::from_slice(&self.asked.body)
            .map_err(|_| said(400, "PGRST102", "Empty or invalid json"))
    }

    fn known(&self, written: &[String]) -> Result<(), Answer> {
        let unknown = written.iter().find(|name| !self.columns.contains(name));
        let Some(name) = unknown else { return Ok(()) };
        let text =
            format!("Could not find the '{name}' column of '{}' in the schema cache", self.table);
        Err(said(400, "PGRST204", &text))
    }

    async fn primary_key(&self) -> Result<Vec<String>, Answer> {
        let sql = "select a.attname::text from pg_index i join pg_attribute a \
                   on a.attrelid = i.indrelid and a.attnum = any (i.indkey) \
                   where i.indrelid = to_regclass($1) and i.indisprimary";
        let table = format!("public.{}", quote(&self.table));
        let rows = self.client.query(sql, &[&table]).await;
        let rows = rows.map_err(|error| failed(&error, self.is_anonymous))?;
        Ok(rows.iter().map(|row| row.get(0)).collect())
    }
}

async fn columns_of(client: &Client, table: &str) -> Result<Vec<String>, Error> {
    let sql = "select attname::text from pg_attribute a join pg_class c on c.oid = a.attrelid \
               where c.relnamespace = 'public'::regnamespace and c.relname = $1 \
                 and c.relkind in ('r', 'p', 'v', 'm') and attnum > 0 and not attisdropped";
    let rows = client.query(sql, &[&Text(table.to_owned())]).await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// The columns of a body: PostgREST takes rows that have all the same.
fn keys(rows: &[Value]) -> Result<Vec<String>, Answer> {
    let of = |row: &Value| row.as_object().map(|row| row.keys().cloned().collect::<Vec<_>>());
    let first = rows.first().and_then(of).unwrap_or_default();
    if first.is_empty() {
        return Err(said(400, "PGRST102", "Empty or invalid json"));
    }
    if rows.iter().any(|row| of(row).as_ref() != Some(&first)) {
        return Err(said(400, "PGRST102", "All object keys must match"));
    }
    Ok(first)
}

fn list(names: &[String]) -> String {
    names.iter().map(|name| quote(name)).collect::<Vec<_>>().join(", ")
}

fn said(status: u16, code: &str, text: &str) -> Answer {
    let body = json!({ "code": code, "details": null, "hint": null, "message": text });
    refusal(StatusCode::from_u16(status).expect("a status"), &body)
}

/// An error of PostgreSQL's, with the status that PostgREST gives it.
fn failed(error: &Error, is_anonymous: bool) -> Answer {
    let Some(error) = error.as_db_error() else {
        return said(503, "PGRST001", &format!("Database client error: {error}"));
    };
    let code = error.code().code();
    let status = match code {
        "42501" if is_anonymous => 401,
        "42501" => 403,
        "23503" | "23505" => 409,
        "25006" => 405,
        "42883" | "42P01" => 404,
        "P0001" => 400,
        _ => match &code[..2] {
            "08" | "53" => 503,
            "0L" | "0P" | "28" => 403,
            "09" | "25" | "2D" | "38" | "39" | "3B" | "40" | "54" | "55" | "57" | "58" | "F0"
            | "HV" | "P0" | "XX" => 500,
            _ => 400,
        },
    };
    let body = json!({
        "code": code, "details": error.detail(), "hint": error.hint(), "message": error.message(),
    });
    refusal(StatusCode::from_u16(status).expect("a status"), &body)
}

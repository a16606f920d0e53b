//! A query string of PostgREST's as SQL: identifiers are quoted, values are parameters.

use tokio_postgres::types::{Format, IsNull, ToSql, Type, private::BytesMut};

/// Why a request is none that this stand-in carries out.
#[derive(Debug, PartialEq)]
pub(super) struct Unclear(pub(super) String);

/// What a query string asks for.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Query {
    /// Columns of the answer, with their names there; none: all.
    columns: Vec<(String, String)>,
    /// SQL with placeholders, joined by `and`.
    conditions: Vec<String>,
    order: Vec<String>,
    limit: Option<u64>,
    offset: u64,
    /// Columns of a body, and of the constraint that an upsert is about.
    pub(super) written: Vec<String>,
    pub(super) on_conflict: Vec<String>,
    /// The values of the placeholders.
    pub(super) values: Vec<Text>,
}

/// A value in PostgreSQL's text form, for a parameter of any type: the server parses it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Text(pub(super) String);

impl ToSql for Text {
    fn to_sql(
        &self,
        _: &Type,
        out: &mut BytesMut,
    ) -> Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
        out.extend_from_slice(self.0.as_bytes());
        Ok(IsNull::No)
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    fn encode_format(&self, _: &Type) -> Format {
        Format::Text
    }

    tokio_postgres::types::to_sql_checked!();
}

pub(super) fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

impl Query {
    /// Reads it. Columns are qualified with the table, since a body may have columns of the same names.
    pub(super) fn parse(table: &str, pairs: &[(String, String)]) -> Result<Self, Unclear> {
        let mut query = Self::default();
        for (name, value) in pairs {
            match name.as_str() {
                "apikey" => {}
                "select" => query.columns = columns(value)?,
                "order" => query.order = order(table, value)?,
                "limit" => query.limit = Some(number(value)?),
                "offset" => query.offset = number(value)?,
                "columns" => query.written = names(value),
                "on_conflict" => query.on_conflict = names(value),
                "or" | "and" | "not.or" | "not.and" => return Err(no(&format!("{name}=(…)"))),
                column => query.filter(table, column, value)?,
            }
        }
        Ok(query)
    }

    fn filter(&mut self, table: &str, column: &str, value: &str) -> Result<(), Unclear> {
        if column.contains(['-', '>', '.', '(']) {
            return Err(no(&format!("a filter on {column}")));
        }
        let (negated, rest) = match value.strip_prefix("not.") {
            Some(rest) => ("not ", rest),
            None => ("", value),
        };
        let (operator, operand) = rest
            .split_once('.')
            .ok_or_else(|| Unclear(format!("failed to parse filter ({value})")))?;
        let column = format!("{}.{}", quote(table), quote(column));
        let condition = match operator {
            "eq" => self.compare(&column, "=", operand),
            "neq" => self.compare(&column, "<>", operand),
            "gt" => self.compare(&column, ">", operand),
            "gte" => self.compare(&column, ">=", operand),
            "lt" => self.compare(&column, "<", operand),
            "lte" => self.compare(&column, "<=", operand),
            "like" => self.compare(&column, "like", &operand.replace('*', "%")),
            "ilike" => self.compare(&column, "ilike", &operand.replace('*', "%")),
            "cs" => self.compare(&column, "@>", operand),
            "in" => {
                let list = array(operand)?;
                format!("{column} = any ({})", self.value(list))
            }
            "is" => match operand.to_ascii_lowercase().as_str() {
                word @ ("null" | "true" | "false" | "unknown") => format!("{column} is {word}"),
                "not_null" => format!("{column} is not null"),
                _ => return Err(Unclear(format!("failed to parse filter ({value})"))),
            },
            other => return Err(no(&format!("the operator {other}"))),
        };
        self.conditions.push(format!("{negated}({condition})"));
        Ok(())
    }

    fn compare(&mut self, column: &str, operator: &str, operand: &str) -> String {
        format!("{column} {operator} {}", self.value(operand.to_owned()))
    }

    /// Keeps a value and returns its placeholder.
    pub(super) fn value(&mut self, value: String) -> String {
        self.values.push(Text(value));
        format!("${}", self.values.len())
    }

    /// What is answered, for `select` and `returning`.
    pub(super) fn output(&self, table: &str) -> String {
        if self.columns.is_empty() {
            return format!("{}.*", quote(table));
        }
        let column = |(name, alias): &(String, String)| match name.as_str() {
            "*" => format!("{}.*", quote(table)),
            name => format!("{}.{} as {}", quote(table), quote(name), quote(alias)),
        };
        self.columns.iter().map(column).collect::<Vec<_>>().join(", ")
    }

    /// ` where …`, or nothing.
    pub(super) fn wheres(&self) -> String {
        if self.conditions.is_empty() {
            return String::new();
        }
        format!(" where {}", self.conditions.join(" and "))
    }

    /// ` order by … limit … offset …`, as far as it is asked for.
    pub(super) fn page(&self) -> String {
        let order = if self.order.is_empty() {
            String::new()
        } else {
            format!(" order by {}", self.order.join(", "))
        };
        let limit = self.limit.map(|limit| format!(" limit {limit}")).unwrap_or_default();
        format!("{order}{limit} offset {}", self.offset)
    }

    /// The first row that is answered.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }
}

fn no(what: &str) -> Unclear {
    Unclear(format!("the stand-in of PostgREST does not know {what}"))
}

fn number(value: &str) -> Result<u64, Unclear> {
    value.parse().map_err(|_| Unclear(format!("{value:?} is no number of rows")))
}

/// `"a","b"` or `a,b`.
fn names(value: &str) -> Vec<String> {
    value.split(',').map(|name| name.trim().trim_matches('"').to_owned()).collect()
}

fn columns(value: &str) -> Result<Vec<(String, String)>, Unclear> {
    let mut columns = Vec::new();
    for item in value.split(',').map(str::trim).filter(|item| !item.is_empty()) {
        if item.contains(['(', ')', '>', '!']) || item.contains("::") {
            return Err(no(&format!("select={item}: related tables, casts and paths into JSON")));
        }
        let (alias, name) = item.split_once(':').unwrap_or((item, item));
        columns.push((name.trim_matches('"').to_owned(), alias.trim_matches('"').to_owned()));
    }
    Ok(columns)
}

fn order(table: &str, value: &str) -> Result<Vec<String>, Unclear> {
    let item = |item: &str| {
        let mut words = item.split('.');
        let column = words.next().unwrap_or_default();
        let mut sql = format!("{}.{}", quote(table), quote(column));
        for word in words {
            sql += match word {
                "asc" => " asc",
                "desc" => " desc",
                "nullsfirst" => " nulls first",
                "nullslast" => " nulls last",
                other => return Err(no(&format!("order by {column}.{other}"))),
            };
        }
        Ok(sql)
    };
    value.split(',').map(item).collect()
}

/// `(a,"b, c")` as an array in PostgreSQL's text form.
fn array(operand: &str) -> Result<String, Unclear> {
    let inner = operand.strip_prefix('(').and_then(|rest| rest.strip_suffix(')'));
    let inner = inner.ok_or_else(|| Unclear(format!("failed to parse list ({operand})")))?;
    let (mut items, mut item, mut quoted, mut escaped) = (Vec::new(), String::new(), false, false);
    for character in inner.chars() {
        match character {
            _ if escaped => {
                item.push(character);
                escaped = false;
            }
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            ',' if !quoted => items.push(std::mem::take(&mut item)),
            other => item.push(other),
        }
    }
    if !inner.is_empty() {
        items.push(item);
    }
    let quote = |item: &String| format!("\"{}\"", item.replace('\\', "\\\\").replace('"', "\\\""));
    Ok(format!("{{{}}}", items.iter().map(quote).collect::<Vec<_>>().join(",")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(query: &str) -> Result<Query, Unclear> {
        let url = reqwest::Url::parse(&format!("http://localhost/?{query}")).expect("a query");
        let pairs: Vec<_> =
            url.query_pairs().map(|(a, b)| (a.into_owned(), b.into_owned())).collect();
        Query::parse("alert_rule", &pairs)
    }

    #[test]
    fn filters_become_conditions_with_parameters() {
        let query = parsed("name=eq.a%27;--&enabled=is.true&id=in.(1,%22b,%5C%22c%22)&x=not.gte.3")
            .unwrap();
        assert_eq!(
            query.wheres(),
            " where (\"alert_rule\".\"name\" = $1) and (\"alert_rule\".\"enabled\" is true) \
             and (\"alert_rule\".\"id\" = any ($2)) and not (\"alert_rule\".\"x\" >= $3)"
        );
        let values: Vec<&str> = query.values.iter().map(|value| value.0.as_str()).collect();
        assert_eq!(values, ["a';--", r#"{"1","b,\"c"}"#, "3"]);
    }

    #[test]
    fn names_cannot_leave_their_quotes() {
        let query =
            parsed("select=a%22b,n:name&order=x%22;drop.desc.nullslast&limit=3&offset=2").unwrap();
        assert_eq!(
            query.output("alert_rule"),
            r#""alert_rule"."a""b" as "a""b", "alert_rule"."name" as "n""#
        );
        assert_eq!(
            query.page(),
            r#" order by "alert_rule"."x"";drop" desc nulls last limit 3 offset 2"#
        );
    }

    #[test]
    fn what_is_not_known_is_refused_and_not_left_out() {
        for query in
            ["or=(a.eq.1,b.eq.2)", "select=a,organisation(name)", "a=fts.x", "limit=x", "a=1"]
        {
            assert!(parsed(query).is_err(), "{query}");
        }
    }
}

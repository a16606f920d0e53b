//! Reading request bodies: JSON objects, with faults named precisely.

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use utoipa::ToSchema;
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::Schema;

use super::AdminError;
use crate::spelling::nearest;

/// Reads a body. The fields that it may have are those of the type's schema, which the `OpenAPI`
/// document shows, too.
pub(super) fn read_body<T: DeserializeOwned + ToSchema>(body: &[u8]) -> Result<T, AdminError> {
    let object = read_object(body)?;
    let known = fields_of::<T>();
    if let Some(unknown) = object.keys().find(|field| !known.contains(field)) {
        return Err(AdminError::Request(unknown_field(unknown, &known)));
    }
    // From the text and not from the object, which has forgotten repeated fields and positions.
    serde_json::from_slice(body).map_err(|error| malformed(&error))
}

/// Reads a body of which any field is accepted. Serde alone would take an array for a struct, field
/// after field.
pub(super) fn read_object(body: &[u8]) -> Result<Map<String, Value>, AdminError> {
    if body.trim_ascii().is_empty() {
        return Err(AdminError::Request("the body is empty; send a JSON object".to_owned()));
    }
    let given = match serde_json::from_slice(body).map_err(|error| malformed(&error))? {
        Value::Object(object) => return Ok(object),
        Value::Array(_) => "an array",
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
    };
    Err(AdminError::Request(format!("the body must be a JSON object, not {given}")))
}

fn malformed(error: &serde_json::Error) -> AdminError {
    AdminError::Request(format!("malformed body: {error}"))
}

fn unknown_field(unknown: &str, known: &[String]) -> String {
    match nearest(unknown, known.iter().map(String::as_str)) {
        Some(meant) => format!("unknown field {unknown:?}; did you mean {meant:?}?"),
        None => format!("unknown field {unknown:?}; known fields are {}", known.join(", ")),
    }
}

fn fields_of<T: ToSchema>() -> Vec<String> {
    match T::schema() {
        RefOr::T(Schema::Object(object)) => object.properties.keys().cloned().collect(),
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key_management::DeviceKeyRequest;

    fn problem(body: &str) -> String {
        let read: Result<DeviceKeyRequest, _> = read_body(body.as_bytes());
        let Err(AdminError::Request(problem)) = read else { panic!("{body}: {read:?}") };
        problem
    }

    // Serde reads an array as the fields of a struct in their order.
    #[test]
    fn only_an_object_is_a_body() {
        for (body, given) in [
            (r#"["hub", null, null, null, null]"#, "an array"),
            ("[]", "an array"),
            ("null", "null"),
            ("true", "a boolean"),
            ("17", "a number"),
            (r#""hub""#, "a string"),
        ] {
            assert_eq!(problem(body), format!("the body must be a JSON object, not {given}"));
        }
        for empty in ["", " \n"] {
            assert_eq!(problem(empty), "the body is empty; send a JSON object");
        }
        assert!(read_body::<DeviceKeyRequest>(b" {\"name\": \"hub\"}\n").is_ok());
    }

    #[test]
    fn an_unknown_field_is_told_the_name_that_was_meant() {
        let meant = problem(r#"{"name": "hub", "expires_in_second": 7}"#);
        assert_eq!(
            meant,
            r#"unknown field "expires_in_second"; did you mean "expires_in_seconds"?"#
        );
        let far = problem(r#"{"name": "hub", "colour": "red"}"#);
        assert!(far.starts_with(r#"unknown field "colour"; known fields are "#), "{far}");
        for field in ["name", "scopes", "expires_at", "expires_in_seconds", "grace_seconds"] {
            assert!(far.contains(field), "{far}");
        }
    }

    #[test]
    fn a_malformed_body_is_told_where() {
        let text = problem(r#"{"name": 7}"#);
        assert!(text.starts_with("malformed body: ") && text.contains("line 1"), "{text}");
        let twice = problem(r#"{"name": "a", "name": "b"}"#);
        assert!(twice.contains("duplicate field"), "{twice}");
        assert!(problem("{").starts_with("malformed body: "));
    }
}

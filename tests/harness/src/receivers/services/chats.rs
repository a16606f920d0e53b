//! Chats.

use serde_json::{Value, json};

use super::super::{Asked, Service, State};
use super::{JSON, Judged, TEXT, known, length, must, object, path, text};

pub(super) fn slack(secret: &str, asked: &Asked) -> Judged {
    known(Service::Slack, asked.path == path(Service::Slack, secret))?;
    let body = Value::Object(object(asked)?);
    let attachments = body["attachments"].as_array();
    let has_words = !text(&body, "text").is_empty() || body["blocks"].is_array();
    must(has_words || attachments.is_some_and(|all| !all.is_empty()), "no_text")?;
    must(attachments.is_none_or(|all| all.len() <= 100), "too_many_attachments")?;
    let mut state = None;
    for attachment in attachments.into_iter().flatten() {
        for key in ["title", "text", "fallback", "color", "title_link", "footer"] {
            let is_text = attachment[key].is_null() || attachment[key].is_string();
            must(is_text, &format!("{key} of an attachment is not a text"))?;
        }
        let link = text(attachment, "title_link");
        must(link.is_empty() || link.contains("://"), "title_link is not a URL")?;
        state = match text(attachment, "color") {
            "good" => Some(State::Resolved),
            "danger" => Some(State::Firing),
            _ => state,
        };
    }
    Ok((200, TEXT, "ok".to_owned(), state))
}

pub(super) fn telegram(secret: &str, asked: &Asked) -> Judged {
    let Some(rest) = asked.path.strip_prefix("/bot") else {
        return Err((404, "not found".to_owned()));
    };
    let Some((token, "sendMessage")) = rest.rsplit_once('/') else {
        return Err((404, "not found".to_owned()));
    };
    known(Service::Telegram, token == secret)?;
    let body = Value::Object(object(asked)?);
    let chat = match &body["chat_id"] {
        Value::String(text) => text.parse::<i64>().ok(),
        other => other.as_i64(),
    };
    let Some(chat) = chat.filter(|chat| *chat != 0) else {
        return Err((400, "chat not found".to_owned()));
    };
    let message = text(&body, "text");
    must(!message.trim().is_empty(), "message text is empty")?;
    must(length(message) <= 4096, "message is too long")?;
    if body["parse_mode"] == "HTML" {
        must(has_paired_tags(message), "can't parse entities")?;
    }
    // Of a message that has no place for it, only its words tell.
    let (firing, resolved) = (message.contains("iring"), message.contains("esolved"));
    let state = match (firing, resolved) {
        (true, _) => Some(State::Firing),
        (false, true) => Some(State::Resolved),
        (false, false) => None,
    };
    let kind = if chat < 0 { "group" } else { "private" };
    let answer = json!({"ok": true, "result": {
        "message_id": fastrand::u16(1..), "date": 1_700_000_000, "text": message,
        "chat": {"id": chat, "type": kind},
    }});
    Ok((200, JSON, answer.to_string(), state))
}

/// Every `<` begins one of Telegram's tags, and each is closed in its turn.
fn has_paired_tags(text: &str) -> bool {
    const TAGS: [&str; 14] = [
        "b",
        "strong",
        "i",
        "em",
        "u",
        "ins",
        "s",
        "strike",
        "del",
        "a",
        "code",
        "pre",
        "span",
        "blockquote",
    ];
    let mut open = Vec::new();
    for piece in text.split('<').skip(1) {
        let Some((tag, _)) = piece.split_once('>') else { return false };
        let is_paired = match tag.strip_prefix('/') {
            Some(name) => open.pop() == Some(name),
            None => {
                let name = tag.split(' ').next().unwrap_or_default();
                open.push(name);
                TAGS.contains(&name)
            }
        };
        if !is_paired {
            return false;
        }
    }
    open.is_empty()
}

pub(super) fn discord(secret: &str, asked: &Asked) -> Judged {
    known(Service::Discord, asked.path == path(Service::Discord, secret))?;
    let body = Value::Object(object(asked)?);
    let embeds = body["embeds"].as_array();
    let content = text(&body, "content");
    must(!content.is_empty() || embeds.is_some_and(|all| !all.is_empty()), "empty message")?;
    must(length(content) <= 2000, "content is longer than 2000")?;
    must(embeds.is_none_or(|all| all.len() <= 10), "more than 10 embeds")?;
    let name = text(&body, "username").to_lowercase();
    must(length(&name) <= 80 && !name.contains("discord"), "username is not allowed")?;
    let mut state = None;
    for embed in embeds.into_iter().flatten() {
        must(length(text(embed, "title")) <= 256, "title is longer than 256")?;
        must(length(text(embed, "description")) <= 4096, "description is longer than 4096")?;
        must(embed["color"].is_null() || embed["color"].is_u64(), "color is not a number")?;
        state = match embed["color"].as_u64() {
            Some(0x99_2D_22) => Some(State::Firing),
            Some(0x2E_CC_71) => Some(State::Resolved),
            _ => state,
        };
    }
    Ok((204, JSON, String::new(), state))
}

pub(super) fn teams(secret: &str, asked: &Asked) -> Judged {
    let body = Value::Object(object(asked)?);
    if asked.path.starts_with("/webhookb2/") {
        known(Service::Teams, asked.path.contains(secret))?;
        // The reference wants `@type`; connectors took Alertmanager's `type` too.
        let is_card = body["@type"] == "MessageCard" || body["type"] == "MessageCard";
        must(is_card, "@type is not MessageCard")?;
        let has_words = !text(&body, "summary").is_empty() || !text(&body, "text").is_empty();
        must(has_words, "Summary or Text is required.")?;
        let state = match text(&body, "themeColor") {
            "8C1A1A" => Some(State::Firing),
            "2DC72D" => Some(State::Resolved),
            _ => None,
        };
        return Ok((200, TEXT, "1".to_owned(), state));
    }
    let whole = format!("{}?{}", asked.path, asked.query);
    known(Service::Teams, whole == path(Service::Teams, secret))?;
    must(body["type"] == "message", "type is not message")?;
    let attachments = body["attachments"].as_array().filter(|all| !all.is_empty());
    must(attachments.is_some(), "there are no attachments")?;
    let mut state = None;
    for attachment in attachments.into_iter().flatten() {
        let kind = text(attachment, "contentType");
        must(kind == "application/vnd.microsoft.card.adaptive", "contentType is no adaptive card")?;
        let card = &attachment["content"];
        must(card["type"] == "AdaptiveCard", "the content is no adaptive card")?;
        must(!text(card, "version").is_empty(), "the card has no version")?;
        let blocks = card["body"].as_array().filter(|all| !all.is_empty());
        must(blocks.is_some(), "the card has no body")?;
        for block in blocks.into_iter().flatten() {
            must(block["type"] == "TextBlock" && block["text"].is_string(), "a block has no text")?;
            state = match text(block, "color") {
                "Attention" => Some(State::Firing),
                "Good" => Some(State::Resolved),
                _ => state,
            };
        }
    }
    Ok((202, JSON, String::new(), state))
}

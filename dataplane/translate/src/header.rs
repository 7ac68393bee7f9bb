//! Header edits: `headers_to_add` and `headers_to_remove` of every level.

use policy::route::{AppendAction, HeaderOps};
use proto::pb::envoy::config::core::v3::{HeaderValueOption, header_value_option::HeaderAppendAction};

use crate::{
    fields,
    reject::{At, Fault, Reason},
};

/// One level's edits; `fields` are the names of its two fields, adding first.
pub(crate) fn ops(
    add: &[HeaderValueOption],
    remove: &[String],
    fields: (&'static str, &'static str),
    at: &At<'_>,
) -> Result<HeaderOps, Fault> {
    let mut ops = HeaderOps::default();
    let add_at = at.field(fields.0);
    for (index, option) in add.iter().enumerate() {
        let at = add_at.index(index);
        let header_at = at.field("header");
        let header = header_at.require(option.header.as_ref())?;
        header_at.refuse("raw_value", !header.raw_value.is_empty())?;
        let value_at = header_at.field("value");
        let value = literal(&header.value, &value_at)?;
        let action = action(option, &at)?;
        // Envoy, too, takes an empty value without `keep_empty_value` as nothing to add.
        if value.is_empty() && !option.keep_empty_value {
            continue;
        }
        let added = ops.add(&header.key, value.as_bytes(), action);
        added.map_err(|error| header_at.fault(Reason::Header(error)))?;
    }
    let remove_at = at.field(fields.1);
    for (index, name) in remove.iter().enumerate() {
        ops.remove(name).map_err(|error| remove_at.index(index).fault(Reason::Header(error)))?;
    }
    Ok(ops)
}

#[allow(deprecated, reason = "a field that Envoy advises against is still one that may be set")]
fn action(option: &HeaderValueOption, at: &At<'_>) -> Result<AppendAction, Fault> {
    let action = fields::enumeration(option.append_action, &at.field("append_action"))?;
    Ok(match (&option.append, action) {
        (Some(append), _) if append.value => AppendAction::Append,
        (Some(_), _) => AppendAction::Overwrite,
        (None, HeaderAppendAction::AppendIfExistsOrAdd) => AppendAction::Append,
        (None, HeaderAppendAction::AddIfAbsent) => AppendAction::AddIfAbsent,
        (None, HeaderAppendAction::OverwriteIfExistsOrAdd) => AppendAction::Overwrite,
        (None, HeaderAppendAction::OverwriteIfExists) => AppendAction::OverwriteIfPresent,
    })
}

/// Text in which Envoy would replace `%COMMAND%`; Ringway has no commands, so only `%%`, a percent sign, may stand.
fn literal(text: &str, at: &At<'_>) -> Result<String, Fault> {
    let plain = text.replace("%%", "");
    if plain.contains('%') {
        return Err(at.fault(Reason::Invalid {
            value: text.to_owned(),
            expected: "literal text (`%COMMAND%` is not supported by Ringway)",
        }));
    }
    Ok(text.replace("%%", "%"))
}

//! Messages that hold route tables, decoded without their routes, which are taken out to be decoded one by one.
//!
//! A decoded route is some kilobytes of mostly empty fields, whatever it says, and its list grows by doubling: thousands of
//! routes would need tens of megabytes for a moment. Between messages they are slices of the bytes they came in.

use prost::{
    DecodeError, Message,
    encoding::{DecodeContext, WireType, decode_key, decode_varint, encode_key, encode_varint, skip_field},
};

/// Fields from a `RouteConfiguration` to its routes: `virtual_hosts`, `routes`.
pub(crate) const IN_ROUTE_CONFIGURATION: &[u32] = &[2, 3];
/// Fields from a `HttpConnectionManager`: `route_config` and then those.
pub(crate) const IN_CONNECTION_MANAGER: &[u32] = &[4, 2, 3];

/// Encoded routes, by virtual host; none for what was decoded whole.
#[derive(Debug, Default)]
pub(crate) struct TakenRoutes<'a>(Vec<Vec<&'a [u8]>>);

impl<'a> TakenRoutes<'a> {
    /// Those of a virtual host by its position.
    pub(crate) fn of_host(&self, position: usize) -> &[&'a [u8]] {
        self.0.get(position).map(Vec::as_slice).unwrap_or_default()
    }
}

/// Decodes a message and takes out the routes that `path` leads to. Bytes that this does not understand are decoded with
/// the routes in them, which also says what is wrong with them.
pub(crate) fn decode<'a, M: Message + Default>(
    bytes: &'a [u8],
    path: &[u32],
) -> Result<(M, TakenRoutes<'a>), DecodeError> {
    let mut hosts = Vec::new();
    match without_routes(bytes, path, &mut hosts) {
        Some(rest) => Ok((M::decode(&*rest)?, TakenRoutes(hosts))),
        None => Ok((M::decode(bytes)?, TakenRoutes::default())),
    }
}

/// The message without its routes, which are added to `hosts`.
fn without_routes<'a>(mut bytes: &'a [u8], path: &[u32], hosts: &mut Vec<Vec<&'a [u8]>>) -> Option<Vec<u8>> {
    let (step, deeper) = path.split_first()?;
    let mut rest = Vec::new();
    let mut found = 0;
    while !bytes.is_empty() {
        let field = bytes;
        let (tag, wire_type) = decode_key(&mut bytes).ok()?;
        if tag != *step {
            skip_field(wire_type, tag, &mut bytes, DecodeContext::default()).ok()?;
            rest.extend_from_slice(field.get(..field.len() - bytes.len())?);
            continue;
        }
        if wire_type != WireType::LengthDelimited {
            return None;
        }
        let length = usize::try_from(decode_varint(&mut bytes).ok()?).ok()?;
        let (value, after) = bytes.split_at_checked(length)?;
        bytes = after;
        found += 1;
        match deeper {
            [] => {
                hosts.last_mut()?.push(value);
                continue;
            }
            [_] => hosts.push(Vec::new()),
            // A decoder would make one message of several, or forget the first; virtual hosts would not be counted right.
            _ if found > 1 => return None,
            _ => {}
        }
        let value = without_routes(value, deeper, hosts)?;
        encode_key(tag, wire_type, &mut rest);
        encode_varint(value.len() as u64, &mut rest);
        rest.extend_from_slice(&value);
    }
    Some(rest)
}

#[cfg(test)]
mod tests {
    use proto::pb::envoy::{
        config::route::v3::{Route, RouteConfiguration, VirtualHost},
        extensions::filters::network::http_connection_manager::v3::{
            HttpConnectionManager, http_connection_manager::RouteSpecifier,
        },
    };

    use super::*;

    fn host(name: &str, routes: &[&str]) -> VirtualHost {
        let route = |name: &&str| Route { name: (*name).to_owned(), ..Route::default() };
        let domains = vec![format!("{name}.example")];
        let routes = routes.iter().map(route).collect();
        VirtualHost {
            name: name.to_owned(),
            domains,
            routes,
            include_request_attempt_count: true,
            ..VirtualHost::default()
        }
    }

    fn table() -> RouteConfiguration {
        let virtual_hosts = vec![host("a", &["one", ""]), host("b", &[]), host("c", &["two"])];
        RouteConfiguration {
            name: "table".into(),
            virtual_hosts,
            vhost_header: "x".into(),
            ..RouteConfiguration::default()
        }
    }

    fn put_back(table: &mut RouteConfiguration, taken: &TakenRoutes<'_>) {
        for (position, host) in table.virtual_hosts.iter_mut().enumerate() {
            assert!(host.routes.is_empty());
            host.routes =
                taken.of_host(position).iter().map(|bytes| Route::decode(*bytes).unwrap()).collect();
        }
    }

    #[test]
    fn the_routes_and_the_rest_are_the_message_that_was_encoded() {
        let bytes = table().encode_to_vec();
        let (mut decoded, taken) = decode::<RouteConfiguration>(&bytes, IN_ROUTE_CONFIGURATION).unwrap();
        assert_eq!([0, 1, 2, 3].map(|host| taken.of_host(host).len()), [2, 0, 1, 0]);
        put_back(&mut decoded, &taken);
        assert_eq!(decoded, table());

        let manager = HttpConnectionManager {
            stat_prefix: "in".into(),
            route_specifier: Some(RouteSpecifier::RouteConfig(table())),
            via: "last".into(),
            ..HttpConnectionManager::default()
        };
        let bytes = manager.encode_to_vec();
        let (mut decoded, taken) = decode::<HttpConnectionManager>(&bytes, IN_CONNECTION_MANAGER).unwrap();
        let Some(RouteSpecifier::RouteConfig(inner)) = &mut decoded.route_specifier else { panic!() };
        put_back(inner, &taken);
        assert_eq!(decoded, manager);
    }

    #[test]
    fn a_table_in_two_pieces_is_decoded_whole() {
        let piece = |host: VirtualHost| {
            let table = RouteConfiguration { virtual_hosts: vec![host], ..RouteConfiguration::default() };
            let route_specifier = Some(RouteSpecifier::RouteConfig(table));
            HttpConnectionManager { route_specifier, ..HttpConnectionManager::default() }.encode_to_vec()
        };
        let bytes = [piece(host("a", &["one"])), piece(host("b", &["two"]))].concat();
        let (decoded, taken) = decode::<HttpConnectionManager>(&bytes, IN_CONNECTION_MANAGER).unwrap();
        assert_eq!(decoded, HttpConnectionManager::decode(&*bytes).unwrap());
        assert!(taken.of_host(0).is_empty() && taken.of_host(1).is_empty());
    }

    #[test]
    fn damaged_bytes_are_an_error_where_the_whole_message_is_one() {
        let bytes = table().encode_to_vec();
        let routes_are_whole =
            |taken: &TakenRoutes<'_>| taken.0.iter().flatten().all(|bytes| Route::decode(*bytes).is_ok());
        for at in 0..bytes.len() {
            for damage in [0x01, 0x02, 0x80, 0xff] {
                let mut damaged = bytes.clone();
                damaged[at] ^= damage;
                let whole = RouteConfiguration::decode(&*damaged);
                let parts = decode::<RouteConfiguration>(&damaged, IN_ROUTE_CONFIGURATION);
                let is_good = parts.is_ok_and(|(_, taken)| routes_are_whole(&taken));
                assert_eq!(is_good, whole.is_ok(), "byte {at}, {damage:x}");
            }
            let cut = &bytes[..at];
            let parts = decode::<RouteConfiguration>(cut, IN_ROUTE_CONFIGURATION);
            assert_eq!(parts.is_ok(), RouteConfiguration::decode(cut).is_ok(), "cut at {at}");
        }
    }
}

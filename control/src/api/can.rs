//! `/api/v1/can`.

use std::net::{IpAddr, Ipv4Addr};

use axum::Json;
use axum::extract::{RawQuery, State};
use axum::http::StatusCode;
use policy::peer::SpiffeId;
use serde::{Deserialize, Serialize};

use super::Api;
use crate::authorize::{self, Answer, Call, CallRequest, CannotTell};
use crate::compile;
use crate::model::Name;

/// What is asked, as the query of `/api/v1/can` has it: `from`, `to`, `method`, `path`, and what else is not as usual.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Question {
    /// Who calls: `service`, `namespace/service`, or `spiffe://DOMAIN/PATH`.
    pub from: String,
    /// The service that is called: `service` or `namespace/service`.
    pub to: String,
    /// `GET` if nobody says.
    pub method: Option<String>,
    /// `/` if nobody says.
    pub path: Option<String>,
    /// The host that is asked for; the service's own if nobody says.
    pub host: Option<String>,
    /// The application's port; its first one if nobody says.
    pub port: Option<u16>,
    /// Where the caller is; `127.0.0.1` if nobody says.
    pub address: Option<IpAddr>,
    /// Headers, each `name: value`.
    pub headers: Vec<String>,
}

/// Why there is no answer, as the API says it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// In one sentence.
    pub error: String,
}

impl Question {
    /// As a query.
    pub fn query(&self) -> String {
        let Question { from, to, method, path, host, port, address, headers } = self;
        let port = port.map(|port| port.to_string());
        let address = address.map(|address| address.to_string());
        let mut query = form_urlencoded::Serializer::new(String::new());
        query.append_pair("from", from).append_pair("to", to);
        let rest =
            [("method", method), ("path", path), ("host", host), ("port", &port), ("address", &address)];
        query.extend_pairs(rest.iter().filter_map(|(name, value)| Some((name, value.as_ref()?))));
        query.extend_pairs(headers.iter().map(|header| ("header", header)));
        query.finish()
    }

    fn parse(query: &str) -> Result<Question, String> {
        let mut asked = Question::default();
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            let not = |what: &str| format!("{name}: `{value}` is not {what}");
            match &*name {
                "from" => asked.from = value.into_owned(),
                "to" => asked.to = value.into_owned(),
                "method" => asked.method = Some(value.into_owned()),
                "path" => asked.path = Some(value.into_owned()),
                "host" => asked.host = Some(value.into_owned()),
                "port" => asked.port = Some(value.parse().map_err(|_| not("a port"))?),
                "address" => asked.address = Some(value.parse().map_err(|_| not("an IP address"))?),
                "header" => asked.headers.push(value.into_owned()),
                _ => return Err(format!("`{name}` is nothing that is asked here")),
            }
        }
        Ok(asked)
    }

    fn call(self, trust_domain: &str) -> Result<Call, String> {
        let Question { from, to, method, path, host, port, address, headers } = self;
        let header = |line: String| match line.split_once(':') {
            Some((name, value)) => Ok((name.trim().to_owned(), value.trim().to_owned())),
            None => Err(format!("header: `{line}` is not `name: value`")),
        };
        let identity = match from.starts_with("spiffe://") {
            true => from,
            false => compile::identity(trust_domain, &service("from", &from)?),
        };
        let from = SpiffeId::parse(&identity).map_err(|error| format!("from: `{identity}`: {error}"))?;
        Ok(Call {
            from,
            address: address.unwrap_or(Ipv4Addr::LOCALHOST.into()),
            to: service("to", &to)?,
            port,
            request: CallRequest {
                method: method.unwrap_or_else(|| "GET".to_owned()),
                path: path.unwrap_or_else(|| "/".to_owned()),
                host,
                headers: headers.into_iter().map(header).collect::<Result<_, _>>()?,
            },
        })
    }
}

/// `service` of the namespace `default`, or `namespace/service`.
fn service(field: &str, text: &str) -> Result<Name, String> {
    let (namespace, name) = text.split_once('/').unwrap_or(("default", text));
    if namespace.is_empty() || name.is_empty() || name.contains('/') {
        return Err(format!("{field}: `{text}` is neither `service` nor `namespace/service`"));
    }
    Ok(Name::new(namespace, name))
}

/// Of the documents as they are now: a file that was just written counts.
pub(super) async fn answer(
    State(api): State<Api>,
    RawQuery(query): RawQuery,
) -> Result<Json<Answer>, (StatusCode, Json<Refusal>)> {
    let refused = |status, error| (status, Json(Refusal { error }));
    let call = Question::parse(&query.unwrap_or_default()).and_then(|asked| asked.call(&api.trust_domain));
    let call = call.map_err(|error| refused(StatusCode::BAD_REQUEST, error))?;
    api.look_now.ask().await;
    let world = api.worlds.borrow().clone();
    authorize::answer(&world, &api.trust_domain, &call).map(Json).map_err(|error| {
        let status = match error {
            CannotTell::NoService(_) => StatusCode::NOT_FOUND,
            CannotTell::NoRequest(_) => StatusCode::BAD_REQUEST,
            CannotTell::Refused(_) => StatusCode::INTERNAL_SERVER_ERROR,
        };
        refused(status, error.to_string())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_is_a_query_and_back() {
        let asked = Question {
            from: "shop/web".into(),
            to: "orders".into(),
            method: Some("POST".into()),
            path: Some("/a b?c=d&e=%2f".into()),
            host: Some("orders:80".into()),
            port: Some(8080),
            address: Some("fd00::1".parse().unwrap()),
            headers: vec!["a: b=c".into(), "a: d&e".into()],
        };
        assert_eq!(Question::parse(&asked.query()), Ok(asked));
    }

    #[test]
    fn what_is_wrong_with_a_question_is_said() {
        let table = [
            ("from=a&to=b&port=x", "port: `x` is not a port"),
            ("from=a&to=b&address=x", "address: `x` is not an IP address"),
            ("from=a&to=b&pth=/", "`pth` is nothing that is asked here"),
            ("from=a&to=b&header=x", "header: `x` is not `name: value`"),
            ("from=a", "to: `` is neither `service` nor `namespace/service`"),
            ("from=a/b/c&to=b", "from: `a/b/c` is neither `service` nor `namespace/service`"),
            ("from=spiffe://A/b&to=b", "from: `spiffe://A/b`: "),
        ];
        for (query, wanted) in table {
            let error = Question::parse(query).and_then(|asked| asked.call("mesh.local")).unwrap_err();
            assert!(error.starts_with(wanted), "{query}: {error}");
        }
    }
}

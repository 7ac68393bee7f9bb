//! What this executable is when it is started as the proxy, or as an application. Each is a test that does nothing
//! without its variable.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;

/// A proxy that is ready at once, or never, and carries nothing.
#[test]
fn stand_in_for_the_proxy() {
    let Some(file) = std::env::var_os("STAND_IN_FOR_PROXY") else { return };
    let text = fs::read_to_string(file).unwrap();
    let bootstrap: serde_json::Value = serde_json::from_str(&text).unwrap();
    let admin = &bootstrap["admin"]["address"]["socket_address"];
    let admin = format!("{}:{}", admin["address"].as_str().unwrap(), admin["port_value"]);
    let inbound = bootstrap["node"]["metadata"]["ringway"]["inbound"].as_str().unwrap();
    let _inbound = TcpListener::bind(inbound).unwrap();
    let admin = TcpListener::bind(admin).unwrap();
    let answer = match std::env::var_os("STAND_IN_IS") {
        None => "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
        Some(_) => "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
    };
    loop {
        let (mut stream, _) = admin.accept().unwrap();
        let mut head = [0; 1024];
        let _ = stream.read(&mut head);
        let _ = stream.write_all(answer.as_bytes());
    }
}

/// An application that listens when told to, and ends when told to.
#[test]
fn stand_in_for_an_application() {
    let Some(port) = std::env::var_os("STAND_IN_FOR_APPLICATION") else { return };
    let mut lines = std::io::stdin().lines().map_while(Result::ok);
    let listener = (lines.next().as_deref() == Some("listen"))
        .then(|| TcpListener::bind(format!("127.0.0.1:{}", port.to_str().unwrap())).unwrap());
    if listener.is_some() {
        lines.next();
    }
}

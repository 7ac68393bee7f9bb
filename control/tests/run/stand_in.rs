//! What this executable is when it is started as the proxy, or as an application. Each is a test that does nothing
//! without its variable.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};

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

/// An application that answers every request with its name, as HTTP/1.1 without keep-alive, until a line of its input or
/// the end of it.
#[test]
fn stand_in_for_a_server() {
    let Some(port) = std::env::var_os("STAND_IN_FOR_SERVER") else { return };
    let name = std::env::var("STAND_IN_IS").unwrap();
    let listener = TcpListener::bind(format!("127.0.0.1:{}", port.to_str().unwrap())).unwrap();
    std::thread::spawn(|| {
        std::io::stdin().lines().next();
        std::process::exit(0);
    });
    serve(&listener, &name);
}

/// An application that says hello to whoever connects, before it listens to what they have to say.
#[test]
fn stand_in_for_one_that_speaks_first() {
    let Some(port) = std::env::var_os("STAND_IN_SPEAKS_FIRST") else { return };
    let listener = TcpListener::bind(format!("127.0.0.1:{}", port.to_str().unwrap())).unwrap();
    for mut stream in listener.incoming().map_while(Result::ok) {
        std::thread::spawn(move || {
            let _ = stream.write_all(b"220 hello\r\n");
            let (mut said, mut bytes) = (Vec::new(), [0; 1024]);
            while !said.ends_with(b"\r\n\r\n") {
                match stream.read(&mut bytes).unwrap_or_default() {
                    0 => break,
                    count => said.extend_from_slice(&bytes[..count]),
                }
            }
        });
    }
}

/// Answers every request with `name`, for ever.
pub(super) fn serve(listener: &TcpListener, name: &str) -> ! {
    loop {
        let (mut stream, _) = listener.accept().unwrap();
        let mut head = Vec::new();
        let mut bytes = [0; 1024];
        while !head.ends_with(b"\r\n\r\n") {
            match stream.read(&mut bytes).unwrap_or_default() {
                0 => break,
                count => head.extend_from_slice(&bytes[..count]),
            }
        }
        let length = name.len();
        let answer =
            format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{name}");
        let _ = stream.write_all(answer.as_bytes());
    }
}

/// An application that calls what each line of its input names, `http://HOST/` by its HTTP proxy or `VARIABLE` by the
/// address in that variable, and says what it got.
#[test]
fn stand_in_for_a_caller() {
    if std::env::var_os("STAND_IN_FOR_CALLER").is_none() {
        return;
    }
    for line in std::io::stdin().lines().map_while(Result::ok) {
        let (address, target, host) = match line.strip_prefix("http://") {
            Some(rest) => {
                let proxy = std::env::var("HTTP_PROXY").unwrap();
                (
                    proxy.strip_prefix("http://").unwrap().to_owned(),
                    line.clone(),
                    rest.split('/').next().unwrap().to_owned(),
                )
            }
            None => (std::env::var(&line).unwrap(), "/".to_owned(), "anything".to_owned()),
        };
        let mut stream = TcpStream::connect(address).unwrap();
        let request = format!("GET {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        let mut answer = String::new();
        // What is reset before its end is no answer.
        if stream.write_all(request.as_bytes()).and_then(|()| stream.read_to_string(&mut answer)).is_err() {
            answer.clear();
        }
        let status = answer.split(' ').nth(1).unwrap_or("no answer");
        let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        eprintln!("{line}: {status} {body}");
    }
}

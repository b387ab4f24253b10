//! A gateway that responds as a test says, byte for byte.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// What a script does with a connection.
pub(crate) enum Piece {
    Bytes(Vec<u8>),
    /// Waits so long, or until the client leaves.
    Wait(Duration),
    /// The same bytes until the client leaves.
    Endless(&'static [u8]),
}

/// One server; its connections are closed after each response.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    heads: Arc<Mutex<Vec<String>>>,
}

impl Server {
    /// Responds to the head of each request as `script` says.
    pub(crate) fn start(script: impl Fn(&str) -> Vec<Piece> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let heads = Arc::new(Mutex::new(Vec::new()));
        let (script, seen) = (Arc::new(script), Arc::clone(&heads));
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (script, seen) = (Arc::clone(&script), Arc::clone(&seen));
                thread::spawn(move || serve(stream.unwrap(), &seen, &*script));
            }
        });
        Self { address, heads }
    }

    /// One that responds to everything alike.
    pub(crate) fn saying(response: impl Into<Vec<u8>>) -> Self {
        let response = response.into();
        Self::start(move |_| vec![Piece::Bytes(response.clone())])
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The heads of all requests so far.
    pub(crate) fn heads(&self) -> Vec<String> {
        self.heads.lock().unwrap().clone()
    }
}

fn serve(mut stream: TcpStream, heads: &Mutex<Vec<String>>, script: &dyn Fn(&str) -> Vec<Piece>) {
    let (mut head, mut byte) = (Vec::new(), [0; 1]);
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read(&mut byte) {
            Ok(1) => head.push(byte[0]),
            _ => return,
        }
    }
    let head = String::from_utf8(head).unwrap();
    heads.lock().unwrap().push(head.clone());
    for piece in script(&head) {
        let sent = match piece {
            Piece::Bytes(bytes) => stream.write_all(&bytes),
            Piece::Wait(time) => {
                stream.set_read_timeout(Some(time)).unwrap();
                // Also the end of the client's side.
                let _ = stream.read(&mut byte);
                Ok(())
            }
            Piece::Endless(bytes) => {
                while stream.write_all(bytes).is_ok() {}
                return;
            }
        };
        if sent.is_err() {
            return;
        }
    }
}

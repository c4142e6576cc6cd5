//! The connection between the two processes of a hand-over: length-prefixed messages, and sockets.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::net::TcpListener;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::sockopt::socket_acceptconn;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    recvmsg, sendmsg,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::UnixStream;
use tokio::net::unix::OwnedWriteHalf;
use tokio::sync::mpsc;

use super::message::Message;
use crate::limits::SUCCESSION_MESSAGE_BYTES_MAX;

/// How many sockets are sent together at most; the system's limit is 253.
const SOCKETS_PER_MESSAGE: usize = 32;
const SPACE: usize = rustix::cmsg_space!(ScmRights(SOCKETS_PER_MESSAGE));
/// How many messages are read ahead of their use.
const UNREAD_MAX: usize = 4;

/// A connection on which messages and sockets alternate, in an order that both sides know.
pub(super) struct Channel(UnixStream);

/// A connection on which only messages are sent from now on.
pub(in crate::app) struct Messages {
    write: OwnedWriteHalf,
    received: mpsc::Receiver<Message>,
}

impl Channel {
    pub(super) fn new(stream: UnixStream) -> Self {
        Self(stream)
    }

    pub(super) async fn send(&mut self, message: &Message) -> io::Result<()> {
        self.0.write_all(&encode(message)?).await
    }

    /// The next message.
    ///
    /// # Errors
    /// The other process is gone, or sent something that is not a message of this protocol.
    pub(super) async fn receive(&mut self) -> io::Result<Message> {
        read(&mut self.0).await
    }

    pub(super) async fn send_sockets(&self, sockets: &[TcpListener]) -> io::Result<()> {
        for some in sockets.chunks(SOCKETS_PER_MESSAGE) {
            let descriptors: Vec<BorrowedFd<'_>> = some.iter().map(AsFd::as_fd).collect();
            let send = || {
                let mut space = [MaybeUninit::uninit(); SPACE];
                let mut control = SendAncillaryBuffer::new(&mut space);
                if !control.push(SendAncillaryMessage::ScmRights(&descriptors)) {
                    return Err(io::Error::other("the sockets do not fit into one message"));
                }
                // Control data needs at least one byte of ordinary data.
                Ok(sendmsg(&self.0, &[IoSlice::new(&[0])], &mut control, SendFlags::NOSIGNAL)?)
            };
            self.0.async_io(Interest::WRITABLE, send).await?;
        }
        Ok(())
    }

    pub(super) async fn receive_sockets(&self, count: usize) -> io::Result<Vec<TcpListener>> {
        let mut sockets = Vec::new();
        while sockets.len() < count {
            let receive = || {
                let (mut space, mut byte) = ([MaybeUninit::uninit(); SPACE], [0]);
                let mut control = RecvAncillaryBuffer::new(&mut space);
                let flags = RecvFlags::CMSG_CLOEXEC;
                let received = recvmsg(&self.0, &mut [IoSliceMut::new(&mut byte)], &mut control, flags)?;
                let descriptors = control.drain().filter_map(|message| match message {
                    RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
                    _ => None,
                });
                let descriptors: Vec<OwnedFd> = descriptors.flatten().collect();
                if received.bytes == 0 || descriptors.is_empty() {
                    return Err(io::Error::other("the sockets were not received"));
                }
                Ok(descriptors)
            };
            for descriptor in self.0.async_io(Interest::READABLE, receive).await? {
                if !socket_acceptconn(&descriptor)? {
                    return Err(io::Error::other("a received socket does not listen"));
                }
                sockets.push(TcpListener::from(descriptor));
            }
        }
        Ok(sockets)
    }

    /// Converts the connection to one on which only messages are sent.
    pub(super) fn into_messages(self) -> Messages {
        let (mut stream, write) = self.0.into_split();
        let (send, received) = mpsc::channel(UNREAD_MAX);
        tokio::spawn(async move {
            // Ends when the other process is gone, or when the receiver is dropped.
            while let Ok(message) = read(&mut stream).await {
                if send.send(message).await.is_err() {
                    return;
                }
            }
        });
        Messages { write, received }
    }
}

impl Messages {
    pub(super) async fn send(&mut self, message: &Message) -> io::Result<()> {
        self.write.write_all(&encode(message)?).await
    }

    /// The next message; `None` if the other process is gone. Cancel-safe: no message is lost if the future is dropped.
    pub(super) async fn receive(&mut self) -> Option<Message> {
        self.received.recv().await
    }
}

fn encode(message: &Message) -> io::Result<Vec<u8>> {
    let text = serde_json::to_vec(message)?;
    let length = u32::try_from(text.len()).ok().filter(|length| *length <= SUCCESSION_MESSAGE_BYTES_MAX);
    let length = length.ok_or_else(|| io::Error::other("the files have too many routes for one message"))?;
    Ok([&length.to_be_bytes()[..], &text].concat())
}

async fn read(stream: &mut (impl AsyncReadExt + Unpin)) -> io::Result<Message> {
    let length = stream.read_u32().await?;
    if length > SUCCESSION_MESSAGE_BYTES_MAX {
        return Err(io::Error::other("a message is too long"));
    }
    let mut text = vec![0; length as usize];
    stream.read_exact(&mut text).await?;
    Ok(serde_json::from_slice(&text)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn sockets_and_messages_arrive_in_order() {
        let (one, other) = UnixStream::pair().unwrap();
        let (mut one, mut other) = (Channel::new(one), Channel::new(other));
        let sockets: Vec<_> = (0..SOCKETS_PER_MESSAGE + 3).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let addresses = |all: &[TcpListener]| all.iter().map(|socket| socket.local_addr().unwrap()).collect::<Vec<_>>();
        one.send(&Message::Accepting).await.unwrap();
        one.send_sockets(&sockets).await.unwrap();
        one.send(&Message::Released).await.unwrap();
        assert!(matches!(other.receive().await, Ok(Message::Accepting)));
        let received = other.receive_sockets(sockets.len()).await.unwrap();
        assert_eq!(addresses(&received), addresses(&sockets));
        let mut other = other.into_messages();
        assert!(matches!(other.receive().await, Some(Message::Released)));
        drop(one);
        assert!(other.receive().await.is_none());
    }

    #[tokio::test]
    async fn an_invalid_message_is_refused() {
        for bytes in [&b"\xff\xff\xff\xffx"[..], b"\x00\x00\x00\x02{}", b"\x00\x00\x00\x10{"] {
            let (mut one, other) = UnixStream::pair().unwrap();
            one.write_all(bytes).await.unwrap();
            drop(one);
            assert!(Channel::new(other).receive().await.is_err());
        }
    }
}

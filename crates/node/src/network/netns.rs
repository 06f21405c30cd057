//! A network namespace that the process can use without living in it.
//!
//! The kernel decides a socket's namespace once, in `socket(2)`. So one helper thread a namespace is enough: it makes
//! the sockets, and any other thread (tokio's included) binds, connects and polls them. Moving a tokio worker with
//! `setns` would move unrelated tasks: never.

use std::fs::File;
use std::io;
use std::net::{SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;
use std::sync::{Arc, mpsc};

use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::socket::{
    AddressFamily, SockFlag, SockProtocol, SockType, SockaddrIn, SockaddrIn6, setsockopt, socket, sockopt,
};

type Job = Box<dyn FnOnce() + Send>;

/// A handle on a namespace, which lives at least as long as this.
#[derive(Clone, Debug)]
pub struct NetNs {
    file: Arc<File>,
    jobs: mpsc::Sender<Job>,
}

impl NetNs {
    /// A new one, with nothing but a loopback interface that is down.
    pub fn create() -> io::Result<Self> {
        Self::spawn(|| Ok(unshare(CloneFlags::CLONE_NEWNET)?))
    }

    /// An existing one, by a path such as `/proc/<pid>/ns/net`.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        Self::spawn(move || Ok(setns(file, CloneFlags::CLONE_NEWNET)?))
    }

    fn spawn(enter: impl FnOnce() -> io::Result<()> + Send + 'static) -> io::Result<Self> {
        let (jobs, queue) = mpsc::channel::<Job>();
        let (tell, told) = mpsc::channel();
        std::thread::Builder::new()
            .name("netns".into())
            .stack_size(128 * 1024)
            .spawn(move || {
                // The namespace of a thread is not that of /proc/self.
                let entered = enter().and_then(|()| File::open("/proc/thread-self/ns/net"));
                let fine = entered.is_ok();
                if tell.send(entered).is_ok() && fine {
                    queue.iter().for_each(|job| job());
                }
            })?;
        let file = told.recv().map_err(io::Error::other)??;
        Ok(Self {
            file: Arc::new(file),
            jobs,
        })
    }

    /// The namespace itself, to hand on.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Runs `work` on the thread inside. It must not block: everybody else waits.
    pub(super) fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let gone = || io::Error::other("the namespace's thread has ended");
        let (tell, told) = mpsc::channel();
        self.jobs
            .send(Box::new(move || drop(tell.send(work()))))
            .map_err(|_| gone())?;
        told.recv().map_err(|_| gone())?
    }

    /// A non-blocking socket that belongs to this namespace, with SO_REUSEADDR.
    pub fn socket(&self, family: AddressFamily, kind: SockType) -> io::Result<OwnedFd> {
        let fd = self.run(move || {
            Ok(socket(
                family,
                kind,
                SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC,
                None,
            )?)
        })?;
        setsockopt(&fd, sockopt::ReuseAddr, &true)?;
        Ok(fd)
    }

    /// A netlink socket of another namespace: the thread visits it for one system call.
    pub fn netlink_socket_of(&self, other: &File) -> io::Result<OwnedFd> {
        let (home, other) = (self.file.clone(), other.try_clone()?);
        self.run(move || {
            setns(other.as_fd(), CloneFlags::CLONE_NEWNET)?;
            let made = socket(
                AddressFamily::Netlink,
                SockType::Raw,
                SockFlag::SOCK_CLOEXEC,
                SockProtocol::NetlinkRoute,
            );
            // If there is no way back this thread must not make another socket: it ends, and so does the node's net.
            if let Err(error) = setns(home.as_fd(), CloneFlags::CLONE_NEWNET) {
                panic!("cannot return to the node's network namespace: {error}");
            }
            Ok(made?)
        })
    }

    /// A netlink socket of this namespace.
    pub fn netlink_socket(&self) -> io::Result<OwnedFd> {
        self.run(|| {
            Ok(socket(
                AddressFamily::Netlink,
                SockType::Raw,
                SockFlag::SOCK_CLOEXEC,
                SockProtocol::NetlinkRoute,
            )?)
        })
    }

    /// Connects from inside, without Nagle's delay.
    pub async fn connect(&self, to: SocketAddr) -> io::Result<tokio::net::TcpStream> {
        let socket = tokio_socket(self.socket(family(&to), SockType::Stream)?);
        let stream = socket.connect(to).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    /// Listens inside.
    pub fn listen(&self, on: SocketAddr) -> io::Result<tokio::net::TcpListener> {
        let socket = tokio_socket(self.socket(family(&on), SockType::Stream)?);
        socket.bind(on)?;
        socket.listen(1024)
    }

    /// A datagram socket bound inside. Bind a service's address, not 0.0.0.0, or answers carry another source.
    pub fn udp(&self, on: SocketAddr) -> io::Result<tokio::net::UdpSocket> {
        let fd = self.socket(family(&on), SockType::Datagram)?;
        match on {
            SocketAddr::V4(on) => nix::sys::socket::bind(fd.as_raw_fd(), &v4(on))?,
            SocketAddr::V6(on) => nix::sys::socket::bind(fd.as_raw_fd(), &v6(on))?,
        }
        tokio::net::UdpSocket::from_std(fd.into())
    }
}

fn v4(address: SocketAddrV4) -> SockaddrIn {
    address.into()
}

fn v6(address: SocketAddrV6) -> SockaddrIn6 {
    address.into()
}

fn family(address: &SocketAddr) -> AddressFamily {
    if address.is_ipv4() {
        AddressFamily::Inet
    } else {
        AddressFamily::Inet6
    }
}

fn tokio_socket(fd: OwnedFd) -> tokio::net::TcpSocket {
    tokio::net::TcpSocket::from_std_stream(fd.into())
}

//! What runs inside the containers: `/w w VERB …`.

use std::fs;
use std::io::{self, BufRead, IsTerminal, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

pub(crate) fn main(args: &[String]) -> i32 {
    let arg = |index: usize| args.get(index).map_or("", String::as_str);
    let number = |index: usize| arg(index).parse::<u64>().unwrap_or(0);
    let done = match arg(0) {
        "sleep" => sleep(),
        "exit" => return i32::try_from(number(1)).unwrap_or(1),
        "lines" => lines(number(1)),
        "look" => look(),
        "namespaces" => namespaces(),
        "cat" => fs::read_to_string(arg(1)).map(|text| print!("{text}")),
        "write" => fs::write(arg(1), arg(2)),
        "upper" => return upper(),
        "burn" => burn(number(1)),
        "eat" => eat(number(1)),
        "terminate" => terminate(),
        "orphans" => orphans(number(1)),
        "serve" => serve(number(1)),
        "dial" => dial(arg(1)),
        "try" => try_calls(),
        other => Err(io::Error::other(format!("no verb `{other}`"))),
    };
    match done {
        Ok(()) => 0,
        Err(error) => {
            println!("error: {error}");
            1
        }
    }
}

fn sleep() -> io::Result<()> {
    loop {
        std::thread::sleep(Duration::from_secs(3600));
    }
}

/// Numbered lines on both streams, the last without a newline, and out at once.
fn lines(count: u64) -> io::Result<()> {
    let (mut out, mut err) = (io::stdout().lock(), io::stderr().lock());
    for number in 0..count {
        writeln!(out, "out {number}")?;
        writeln!(err, "err {number}")?;
    }
    write!(out, "last words")?;
    out.flush()
}

/// What the container sees of itself, a line each.
fn look() -> io::Result<()> {
    let read = |path: &str| {
        fs::read_to_string(path)
            .unwrap_or_else(|e| e.to_string())
            .trim()
            .replace('\n', "|")
    };
    let status = read("/proc/self/status");
    let field = |name: &str| {
        status
            .split('|')
            .find_map(|l| l.strip_prefix(name))
            .unwrap_or("")
            .trim()
            .replace('\t', " ")
    };
    println!(
        "uid={} gid={} groups={}",
        field("Uid:"),
        field("Gid:"),
        field("Groups:")
    );
    println!("pid={}", std::process::id());
    println!("cwd={}", std::env::current_dir()?.display());
    let env: Vec<String> = std::env::vars()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    println!("env={}", env.join(","));
    println!(
        "hostname={} {}",
        read("/proc/sys/kernel/hostname"),
        read("/etc/hostname")
    );
    println!("hosts={}", read("/etc/hosts").rsplit('|').next().unwrap_or(""));
    println!("capabilities={} {}", field("CapEff:"), field("CapBnd:"));
    println!("seccomp={} nnp={}", field("Seccomp:"), field("NoNewPrivs:"));
    println!("signals blocked={} ignored={}", field("SigBlk:"), field("SigIgn:"));
    let fds: Vec<_> = fs::read_dir("/proc/self/fd")?
        .flatten()
        .map(|e| e.file_name().into_string().unwrap_or_default())
        .collect();
    println!("fds={}", fds.len() - 1); // without the one that reads
    println!("rootfs-write={:?}", fs::write("/data/x", "x").is_ok());
    println!("shm-write={:?}", fs::write("/dev/shm/x", "x").is_ok());
    println!(
        "proc-sys-write={:?}",
        fs::write("/proc/sys/kernel/hostname", "x").is_ok()
    );
    println!("kcore={:?}", fs::metadata("/proc/kcore").map(|m| m.len()).unwrap_or(0));
    let exe = nix::sys::statvfs::statvfs("/proc/self/exe")?;
    println!(
        "exe-read-only={}",
        exe.flags().contains(nix::sys::statvfs::FsFlags::ST_RDONLY)
    );
    Ok(())
}

fn namespaces() -> io::Result<()> {
    for name in ["net", "ipc", "uts", "pid", "mnt"] {
        print!("{} ", fs::read_link(format!("/proc/self/ns/{name}"))?.display());
    }
    println!();
    Ok(())
}

/// stdin in capitals; says whether stdin is a terminal and how wide.
fn upper() -> i32 {
    let tty = io::stdin().is_terminal();
    println!("tty={tty}");
    for line in io::stdin().lock().lines() {
        let Ok(line) = line else { break };
        if line == "width" {
            println!("width={}", width());
        } else {
            println!("{}", line.to_uppercase());
        }
    }
    eprintln!("done");
    5
}

#[expect(unsafe_code, reason = "ioctl")]
fn width() -> u16 {
    let mut size = libc::winsize {
        ws_row: 0,
        ws_col: 0,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    // SAFETY: TIOCGWINSZ writes one `winsize`.
    unsafe { libc::ioctl(0, libc::TIOCGWINSZ, &raw mut size) };
    size.ws_col
}

#[expect(clippy::disallowed_methods, reason = "this is the measured program")]
fn burn(milliseconds: u64) -> io::Result<()> {
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_millis(milliseconds) {
        std::hint::black_box((0..1000u64).sum::<u64>());
    }
    println!("burnt");
    sleep()
}

fn eat(mebibytes: u64) -> io::Result<()> {
    let block = vec![1u8; usize::try_from(mebibytes).unwrap_or(0) << 20];
    println!("ate {}", std::hint::black_box(&block).len());
    sleep()
}

fn terminate() -> io::Result<()> {
    let mut set = nix::sys::signal::SigSet::empty();
    set.add(nix::sys::signal::Signal::SIGTERM);
    set.thread_block()?;
    println!("ready");
    set.wait()?;
    println!("got SIGTERM");
    Ok(())
}

/// Children that hold our pipes and outlive us, if the kernel lets them.
fn orphans(count: u64) -> io::Result<()> {
    for _ in 0..count {
        std::process::Command::new("/proc/self/exe")
            .args(["w", "sleep"])
            .spawn()?;
    }
    println!("going");
    Ok(())
}

fn serve(port: u64) -> io::Result<()> {
    let listener = TcpListener::bind(format!("0.0.0.0:{port}"))?;
    println!("listening");
    for connection in listener.incoming() {
        let mut connection = connection?;
        let peer = connection.peer_addr()?.ip();
        writeln!(connection, "hello {peer}")?;
    }
    Ok(())
}

fn dial(to: &str) -> io::Result<()> {
    let address = to.parse().map_err(io::Error::other)?;
    let mut text = String::new();
    TcpStream::connect_timeout(&address, Duration::from_secs(5))?.read_to_string(&mut text)?;
    print!("{text}");
    Ok(())
}

/// What the sandbox is to forbid, and what it is to leave.
#[expect(unsafe_code, reason = "system calls by number")]
fn try_calls() -> io::Result<()> {
    let call = |name: &str, result: libc::c_long| {
        let errno = nix::errno::Errno::last();
        println!("{name}={}", if result < 0 { format!("{errno:?}") } else { "ok".into() });
    };
    // SAFETY: harmless or refused calls, with numbers and null pointers.
    unsafe {
        call("unshare", libc::syscall(libc::SYS_unshare, libc::CLONE_NEWUSER));
        call(
            "mount",
            libc::syscall(libc::SYS_mount, 0, c"/tmp".as_ptr(), c"tmpfs".as_ptr(), 0, 0),
        );
        call("clone3", libc::syscall(libc::SYS_clone3, 0, 0));
        call("keyctl", libc::syscall(libc::SYS_keyctl, 0, 0));
        call(
            "vsock",
            libc::syscall(libc::SYS_socket, libc::AF_VSOCK, libc::SOCK_STREAM, 0),
        );
        call(
            "inet",
            libc::syscall(libc::SYS_socket, libc::AF_INET, libc::SOCK_STREAM, 0),
        );
        call("getpid", libc::syscall(libc::SYS_getpid));
    }
    let node = |name: &str, mode: libc::mode_t, device: libc::dev_t| {
        let path = format!("/data/{name}");
        let made = nix::sys::stat::mknod(
            path.as_str(),
            nix::sys::stat::SFlag::from_bits_truncate(mode),
            nix::sys::stat::Mode::from_bits_truncate(0o600),
            device,
        );
        let opened = made
            .map_err(io::Error::from)
            .and_then(|()| fs::File::open(&path).map(drop));
        println!(
            "{name}={}",
            opened.map_or_else(|e| format!("{:?}", e.kind()), |()| "ok".into())
        );
    };
    node("null", libc::S_IFCHR, libc::makedev(1, 3));
    node("kmsg", libc::S_IFCHR, libc::makedev(1, 11));
    node("disk", libc::S_IFBLK, libc::makedev(254, 0));
    Ok(())
}

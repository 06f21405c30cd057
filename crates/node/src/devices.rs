//! Which device nodes a container may use: containerd's rules, for both kinds of cgroup.
//!
//! v1 takes them as text. v2 has no file for them but runs a BPF program at each `open` and `mknod` of a device: it is
//! assembled here, because it is twenty instructions and a compiler for it would be a C library.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

/// `c 1:3 rwm`, any device number where there is none.
pub(crate) struct Rule {
    block: bool,
    major: Option<u32>,
    minor: Option<u32>,
    /// Any of `r`, `w`, `m`.
    access: &'static str,
}

const fn char(major: u32, minor: Option<u32>) -> Rule {
    Rule {
        block: false,
        major: Some(major),
        minor,
        access: "rwm",
    }
}

/// containerd `oci.WithDefaultUnixDevices` and the `mknod` rules of runc.
pub(crate) const RULES: &[Rule] = &[
    Rule {
        block: false,
        major: None,
        minor: None,
        access: "m",
    },
    Rule {
        block: true,
        major: None,
        minor: None,
        access: "m",
    },
    char(1, Some(3)), // null
    char(1, Some(5)), // zero
    char(1, Some(7)), // full
    char(1, Some(8)), // random
    char(1, Some(9)), // urandom
    char(5, Some(0)), // tty
    char(5, Some(1)), // console
    char(5, Some(2)), // ptmx
    char(136, None),  // pts/*
];

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = |n: Option<u32>| n.map_or("*".to_string(), |n| n.to_string());
        let kind = if self.block { 'b' } else { 'c' };
        write!(
            f,
            "{kind} {}:{} {}",
            number(self.major),
            number(self.minor),
            self.access
        )
    }
}

/// An eBPF instruction.
#[repr(C)]
#[derive(Clone, Copy)]
struct Instruction {
    code: u8,
    /// Destination in the low half, source in the high one.
    registers: u8,
    offset: i16,
    immediate: i32,
}

const fn instruction(code: u8, destination: u8, source: u8, offset: i16, immediate: i32) -> Instruction {
    Instruction {
        code,
        registers: destination | source << 4,
        offset,
        immediate,
    }
}

// The context is `struct bpf_cgroup_dev_ctx { u32 access_type, major, minor }`, in register 1; access_type is the
// access (1 mknod, 2 read, 4 write) above, the type (1 block, 2 char) below 16 bits.
const LOAD_W: u8 = 0x61;
const MOVE: u8 = 0xbf;
const MOVE_IMMEDIATE: u8 = 0xb7;
const AND_IMMEDIATE: u8 = 0x57;
const SHIFT_RIGHT: u8 = 0x77;
const JUMP_NOT_EQUAL: u8 = 0x55;
const EXIT: u8 = 0x95;
const R0: u8 = 0;
const R1: u8 = 1;
const R2: u8 = 2;
const R3: u8 = 3;
const R4: u8 = 4;
const R5: u8 = 5;
const R6: u8 = 6;

fn program() -> Vec<Instruction> {
    let mut program = vec![
        instruction(LOAD_W, R2, R1, 0, 0),
        instruction(MOVE, R3, R2, 0, 0),
        instruction(AND_IMMEDIATE, R2, 0, 0, 0xffff), // type
        instruction(SHIFT_RIGHT, R3, 0, 0, 16),       // access
        instruction(LOAD_W, R4, R1, 4, 0),            // major
        instruction(LOAD_W, R5, R1, 8, 0),            // minor
    ];
    for rule in RULES {
        let access = [('m', 1), ('r', 2), ('w', 4)]
            .iter()
            .filter(|(c, _)| rule.access.contains(*c));
        let refused = 7 & !access.map(|(_, bit)| bit).sum::<i32>();
        // Conditions, each of which skips to the next rule.
        let mut tests = vec![(R2, if rule.block { 1 } else { 2 })];
        tests.extend(rule.major.map(|major| (R4, major.cast_signed())));
        tests.extend(rule.minor.map(|minor| (R5, minor.cast_signed())));
        let mut body = vec![];
        if refused != 0 {
            body.push(instruction(MOVE, R6, R3, 0, 0));
            body.push(instruction(AND_IMMEDIATE, R6, 0, 0, refused));
            tests.push((R6, 0));
        }
        let length = body.len() + tests.len() + 2;
        let first = body.len();
        for (position, (register, value)) in (first..).zip(tests) {
            let skip = i16::try_from(length - position - 1).unwrap_or(i16::MAX);
            body.push(instruction(JUMP_NOT_EQUAL, register, 0, skip, value));
        }
        body.push(instruction(MOVE_IMMEDIATE, R0, 0, 0, 1));
        body.push(instruction(EXIT, 0, 0, 0, 0));
        program.extend(body);
    }
    program.push(instruction(MOVE_IMMEDIATE, R0, 0, 0, 0));
    program.push(instruction(EXIT, 0, 0, 0, 0));
    program
}

/// Puts the rules on a v2 cgroup. In a user namespace the kernel allows no such program: there the device nodes are
/// binds of the host's and `mknod` of others is impossible anyway.
#[expect(unsafe_code, reason = "bpf(2) has no wrapper")]
pub(crate) fn restrict(group: &File) -> io::Result<()> {
    const BPF_PROG_LOAD: i32 = 5;
    const BPF_PROG_ATTACH: i32 = 8;
    const PROG_TYPE_CGROUP_DEVICE: u32 = 15;
    const CGROUP_DEVICE: u32 = 6;
    const ALLOW_MULTI: u32 = 2;
    #[repr(C)]
    #[derive(Default)]
    struct Load {
        kind: u32,
        instruction_count: u32,
        instructions: u64,
        license: u64,
        log: [u32; 2],
        log_buffer: u64,
        kernel_version: u32,
        flags: u32,
    }
    #[repr(C)]
    struct Attach {
        target: u32,
        program: u32,
        kind: u32,
        flags: u32,
    }
    let fd_number = |fd: i32| u32::try_from(fd).unwrap_or(0);
    let program = program();
    let load = Load {
        kind: PROG_TYPE_CGROUP_DEVICE,
        instruction_count: u32::try_from(program.len()).unwrap_or(0),
        instructions: program.as_ptr() as u64,
        license: c"GPL".as_ptr() as u64,
        ..Default::default()
    };
    // SAFETY: `load` begins as `union bpf_attr` does for this command, is told with its size, and points to memory
    // that outlives the call.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, BPF_PROG_LOAD, &raw const load, size_of::<Load>()) };
    if fd < 0 {
        let error = io::Error::last_os_error();
        let user_namespace = crate::privileges::in_user_namespace();
        return if user_namespace && error.raw_os_error() == Some(libc::EPERM) {
            Ok(())
        } else {
            Err(error)
        };
    }
    let fd = crate::fd::own(i32::try_from(fd).unwrap_or(-1));
    let attach = Attach {
        target: fd_number(group.as_raw_fd()),
        program: fd_number(fd.as_raw_fd()),
        kind: CGROUP_DEVICE,
        flags: ALLOW_MULTI,
    };
    // SAFETY: as above, for `BPF_PROG_ATTACH`.
    let result = unsafe { libc::syscall(libc::SYS_bpf, BPF_PROG_ATTACH, &raw const attach, size_of::<Attach>()) };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_read_as_the_kernel_wants_them() {
        let text: Vec<String> = RULES.iter().map(ToString::to_string).collect();
        assert_eq!(text[0], "c *:* m");
        assert_eq!(text[2], "c 1:3 rwm");
        assert_eq!(text[10], "c 136:* rwm");
    }

    #[test]
    fn every_jump_of_the_program_lands_behind_its_rule() {
        let program = program();
        for (at, instruction) in program.iter().enumerate().filter(|(_, i)| i.code == JUMP_NOT_EQUAL) {
            let target = at + 1 + usize::try_from(instruction.offset).unwrap();
            assert_eq!(program[target - 1].code, EXIT, "jump at {at} to {target}");
        }
    }
}

//! A guest of two hundred bytes: a boot sector that counts its boots in the second sector, says
//! `this is boot N` on the serial port, and then echoes what is typed; `q` switches the machine off, `r` resets.

/// Whether the programs these tests need are here. If not, says so, or fails where `CI=true`.
#[expect(clippy::print_stderr, reason = "a skipped test must say why")]
pub(crate) fn can_run() -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let is_here = |program: &&str| std::env::split_paths(&path).any(|folder| folder.join(program).is_file());
    let needed = ["qemu-system-x86_64", "qemu-img", "ssh", "ssh-keygen"];
    let missing: Vec<&str> = needed.into_iter().filter(|program| !is_here(program)).collect();
    let ci = std::env::var_os("CI").is_some_and(|value| value == "true");
    assert!(missing.is_empty() || !ci, "missing: {missing:?}; ci/setup installs them");
    if !missing.is_empty() {
        eprintln!("skipped: missing: {missing:?}; ci/setup installs them");
    }
    missing.is_empty()
}

/// A disk of one mebibyte with the guest on it.
pub(crate) fn disk() -> Vec<u8> {
    let mut disk = vec![0; 1 << 20];
    disk[..CODE.len()].copy_from_slice(&CODE);
    disk[510..512].copy_from_slice(&[0x55, 0xaa]);
    disk
}

/// The same with other words before the number.
pub(crate) fn disk_that_says(words: &str) -> Vec<u8> {
    let mut disk = disk();
    // Where `mov si, text` has its address: as far behind the code as the sector allows.
    disk[0x1e..0x20].copy_from_slice(&0x7d00_u16.to_le_bytes());
    disk[0x100..0x100 + words.len()].copy_from_slice(words.as_bytes());
    disk
}

#[rustfmt::skip]
const CODE: [u8; 152] = [
    0x31, 0xc0,                   // 00        xor ax, ax
    0x8e, 0xd8,                   // 02        mov ds, ax
    0x8e, 0xc0,                   // 04        mov es, ax
    0x8e, 0xd0,                   // 06        mov ss, ax
    0xbc, 0x00, 0x7c,             // 08        mov sp, 7c00h
    0x88, 0x16, 0x87, 0x7c,       // 0b        mov [drive], dl
    0xb4, 0x42,                   // 0f        mov ah, 42h            ; read
    0xe8, 0x59, 0x00,             // 11        call disk
    0xfe, 0x06, 0x00, 0x80,       // 14        inc byte [8000h]
    0xb4, 0x43,                   // 18        mov ah, 43h            ; write
    0xe8, 0x50, 0x00,             // 1a        call disk
    0xbe, 0x79, 0x7c,             // 1d        mov si, text
    0xac,                         // 20 next:  lodsb
    0x84, 0xc0,                   // 21        test al, al
    0x74, 0x05,                   // 23        jz number
    0xe8, 0x36, 0x00,             // 25        call put
    0xeb, 0xf6,                   // 28        jmp next
    0xa0, 0x00, 0x80,             // 2a number: mov al, [8000h]
    0x04, 0x30,                   // 2d        add al, '0'
    0xe8, 0x2c, 0x00,             // 2f        call put
    0xb0, 0x0a,                   // 32        mov al, 10
    0xe8, 0x27, 0x00,             // 34        call put
    0xba, 0xfd, 0x03,             // 37 echo:  mov dx, 3fdh
    0xec,                         // 3a        in al, dx
    0xa8, 0x01,                   // 3b        test al, 1             ; a byte is there
    0x74, 0xf8,                   // 3d        jz echo
    0xba, 0xf8, 0x03,             // 3f        mov dx, 3f8h
    0xec,                         // 42        in al, dx
    0x3c, 0x71,                   // 43        cmp al, 'q'
    0x74, 0x09,                   // 45        je off
    0x3c, 0x72,                   // 47        cmp al, 'r'
    0x74, 0x0c,                   // 49        je reset
    0xe8, 0x10, 0x00,             // 4b        call put
    0xeb, 0xe7,                   // 4e        jmp echo
    0xba, 0x04, 0x06,             // 50 off:   mov dx, 604h           ; q35's power management
    0xb8, 0x00, 0x20,             // 53        mov ax, 2000h
    0xef,                         // 56        out dx, ax
    0xb0, 0xfe,                   // 57 reset: mov al, feh            ; the keyboard controller's reset line
    0xe6, 0x64,                   // 59        out 64h, al
    0xf4,                         // 5b hang:  hlt
    0xeb, 0xfd,                   // 5c        jmp hang
    0x50,                         // 5e put:   push ax
    0xba, 0xfd, 0x03,             // 5f        mov dx, 3fdh
    0xec,                         // 62 wait:  in al, dx
    0xa8, 0x20,                   // 63        test al, 20h           ; room for a byte
    0x74, 0xfb,                   // 65        jz wait
    0x58,                         // 67        pop ax
    0xba, 0xf8, 0x03,             // 68        mov dx, 3f8h
    0xee,                         // 6b        out dx, al
    0xc3,                         // 6c        ret
    0xbe, 0x88, 0x7c,             // 6d disk:  mov si, packet
    0x8a, 0x16, 0x87, 0x7c,       // 70        mov dl, [drive]
    0x30, 0xc0,                   // 74        xor al, al
    0xcd, 0x13,                   // 76        int 13h
    0xc3,                         // 78        ret
    b't', b'h', b'i', b's', b' ', b'i', b's', b' ', b'b', b'o', b'o', b't', b' ', 0, // 79 text
    0x00,                         // 87 drive
    0x10, 0x00, 0x01, 0x00,       // 88 packet: size, one sector
    0x00, 0x80, 0x00, 0x00,       // 8c        to 0000:8000
    1, 0, 0, 0, 0, 0, 0, 0,       // 90        from sector 1
];

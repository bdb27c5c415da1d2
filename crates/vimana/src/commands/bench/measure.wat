;; What `vimana bench isolation` runs as a Wasm program: the same measurements, in the same words, as the module `measure`
;; of the crate `spacecore` makes them natively. Nothing but WASI preview 1 is imported.
;;
;;   memory   0 .. 1 KiB    what WASI writes its answers into
;;            1 .. 2 KiB    the line that is being put together
;;            2 .. 4 KiB    words
;;            4 .. 16 KiB   the arguments
;;           64 .. 128 KiB  the table that the steps of arithmetic go through
;;          128 KiB ..      a block of 1 MiB, for files
(module
  (import "wasi_snapshot_preview1" "args_sizes_get" (func $args_sizes_get (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "args_get" (func $args_get (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "clock_time_get" (func $clock_time_get (param i32 i64 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_read" (func $fd_read (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_sync" (func $fd_sync (param i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_advise" (func $fd_advise (param i32 i64 i64 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_close" (func $fd_close (param i32) (result i32)))
  (import "wasi_snapshot_preview1" "path_open"
    (func $path_open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "path_unlink_file" (func $path_unlink_file (param i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "poll_oneoff" (func $poll_oneoff (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $proc_exit (param i32)))

  (memory (export "memory") 18)
  (data (i32.const 2048) "hello")
  (data (i32.const 2064) "idle")
  (data (i32.const 2080) "begin ")
  (data (i32.const 2096) "end ")
  (data (i32.const 2112) "write")
  (data (i32.const 2128) "read")
  (data (i32.const 2144) "failed it can't be measured in a Wasm program, or an argument is missing")
  (data (i32.const 2240) "failed the file can't be opened, written or read")
  (data (i32.const 2304) "sum ")

  ;; The end of the line that is being put together.
  (global $line (mut i32) (i32.const 1024))
  ;; The first argument behind the word `measure`, and how many there are in all.
  (global $first (mut i32) (i32.const 0))
  (global $count (mut i32) (i32.const 0))
  ;; The arithmetic's state and sum.
  (global $state (mut i64) (i64.const 1))
  (global $sum (mut i64) (i64.const 0))

  (func $put (param $text i32) (param $length i32)
    (memory.copy (global.get $line) (local.get $text) (local.get $length))
    (global.set $line (i32.add (global.get $line) (local.get $length))))

  (func $put_number (param $number i64)
    (local $at i32)
    ;; From the last digit to the first, below 1 KiB.
    (local.set $at (i32.const 1000))
    (loop $digit
      (local.set $at (i32.sub (local.get $at) (i32.const 1)))
      (i32.store8 (local.get $at)
        (i32.add (i32.const 48) (i32.wrap_i64 (i64.rem_u (local.get $number) (i64.const 10)))))
      (local.set $number (i64.div_u (local.get $number) (i64.const 10)))
      (br_if $digit (i64.ne (local.get $number) (i64.const 0))))
    (call $put (local.get $at) (i32.sub (i32.const 1000) (local.get $at))))

  (func $say
    (i32.store8 (global.get $line) (i32.const 10))
    (i32.store (i32.const 0) (i32.const 1024))
    (i32.store (i32.const 4) (i32.sub (i32.add (global.get $line) (i32.const 1)) (i32.const 1024)))
    (drop (call $fd_write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))
    (global.set $line (i32.const 1024)))

  (func $fail (param $text i32) (param $length i32)
    (call $put (local.get $text) (local.get $length))
    (call $say)
    (call $proc_exit (i32.const 1))
    (unreachable))

  (func $now (result i64)
    (drop (call $clock_time_get (i32.const 1) (i64.const 1) (i32.const 16)))
    (i64.load (i32.const 16)))

  (func $length (param $text i32) (result i32)
    (local $end i32)
    (local.set $end (local.get $text))
    (block $done
      (loop $next
        (br_if $done (i32.eqz (i32.load8_u (local.get $end))))
        (local.set $end (i32.add (local.get $end) (i32.const 1)))
        (br $next)))
    (i32.sub (local.get $end) (local.get $text)))

  ;; The argument at a place behind `measure`.
  (func $argument (param $place i32) (result i32)
    (local.set $place (i32.add (local.get $place) (global.get $first)))
    (if (i32.ge_u (local.get $place) (global.get $count))
      (then (call $fail (i32.const 2144) (i32.const 72))))
    (i32.load (i32.add (i32.const 4096) (i32.shl (local.get $place) (i32.const 2)))))

  (func $number (param $text i32) (result i64)
    (local $value i64)
    (block $done
      (loop $digit
        (br_if $done (i32.eqz (i32.load8_u (local.get $text))))
        (local.set $value (i64.add (i64.mul (local.get $value) (i64.const 10))
          (i64.extend_i32_u (i32.sub (i32.load8_u (local.get $text)) (i32.const 48)))))
        (local.set $text (i32.add (local.get $text) (i32.const 1)))
        (br $digit)))
    (local.get $value))

  (func $begin (param $what i32) (param $length i32)
    (call $put (i32.const 2080) (i32.const 6))
    (call $put (local.get $what) (local.get $length))
    (call $say))

  (func $end (param $what i32) (param $length i32) (param $amount i64) (param $took i64)
    (call $put (i32.const 2096) (i32.const 4))
    (call $put (local.get $what) (local.get $length))
    (i32.store8 (global.get $line) (i32.const 32))
    (global.set $line (i32.add (global.get $line) (i32.const 1)))
    (call $put_number (local.get $amount))
    (i32.store8 (global.get $line) (i32.const 32))
    (global.set $line (i32.add (global.get $line) (i32.const 1)))
    (call $put_number (local.get $took))
    (call $say))

  ;; The smallest call out of the sandbox and back that does something.
  (func $calls (param $count i64)
    (loop $next
      (drop (call $clock_time_get (i32.const 1) (i64.const 1) (i32.const 16)))
      (local.set $count (i64.sub (local.get $count) (i64.const 1)))
      (br_if $next (i64.ne (local.get $count) (i64.const 0)))))

  ;; The same steps as `Steps::take` natively.
  (func $steps (param $count i64)
    (local $state i64) (local $sum i64) (local $place i32)
    (local.set $state (global.get $state))
    (local.set $sum (global.get $sum))
    (loop $next
      (local.set $state (i64.add (i64.mul (local.get $state) (i64.const 6364136223846793005))
        (i64.const 1442695040888963407)))
      (local.set $place (i32.add (i32.const 65536) (i32.shl
        (i32.and (i32.wrap_i64 (i64.shr_u (local.get $state) (i64.const 33))) (i32.const 8191)) (i32.const 3))))
      (i64.store (local.get $place) (i64.xor (i64.load (local.get $place)) (local.get $state)))
      (local.set $sum (i64.add (local.get $sum) (i64.load (i32.add (i32.const 65536)
        (i32.shl (i32.and (i32.wrap_i64 (local.get $sum)) (i32.const 8191)) (i32.const 3))))))
      (local.set $count (i64.sub (local.get $count) (i64.const 1)))
      (br_if $next (i64.ne (local.get $count) (i64.const 0))))
    (global.set $state (local.get $state))
    (global.set $sum (local.get $sum)))

  ;; Rounds that double, until one has taken as long as the arguments ask for.
  (func $double (param $what i32) (param $is_cpu i32) (param $count i64)
    (local $enough i64) (local $began i64) (local $took i64) (local $length i32)
    (local.set $enough (i64.mul (call $number (call $argument (i32.const 1))) (i64.const 1000000)))
    (local.set $length (call $length (local.get $what)))
    (loop $round
      (call $begin (local.get $what) (local.get $length))
      (local.set $began (call $now))
      (if (local.get $is_cpu)
        (then (call $steps (local.get $count)))
        (else (call $calls (local.get $count))))
      (local.set $took (i64.sub (call $now) (local.get $began)))
      (call $end (local.get $what) (local.get $length) (local.get $count) (local.get $took))
      (local.set $count (i64.shl (local.get $count) (i64.const 1)))
      (br_if $round (i64.lt_u (local.get $took) (local.get $enough)))))

  ;; Opens a file by its last name in one of the folders that were granted; leaves the folder's number at 36.
  (func $open (param $name i32) (param $length i32) (param $flags i32) (param $rights i64) (result i32)
    (local $folder i32)
    (local.set $folder (i32.const 3))
    (loop $next
      (if (i32.eqz (call $path_open (local.get $folder) (i32.const 0) (local.get $name) (local.get $length)
          (local.get $flags) (local.get $rights) (local.get $rights) (i32.const 0) (i32.const 32)))
        (then
          (i32.store (i32.const 36) (local.get $folder))
          (return (i32.load (i32.const 32)))))
      (local.set $folder (i32.add (local.get $folder) (i32.const 1)))
      (br_if $next (i32.lt_u (local.get $folder) (i32.const 8))))
    (call $fail (i32.const 2240) (i32.const 48))
    (unreachable))

  (func $disk (param $path i32) (param $bytes i64)
    (local $name i32) (local $at i32) (local $length i32) (local $file i32)
    (local $blocks i64) (local $done i64) (local $state i64) (local $began i64)
    ;; The name behind the last slash.
    (local.set $name (local.get $path))
    (local.set $at (local.get $path))
    (block $ended
      (loop $next
        (br_if $ended (i32.eqz (i32.load8_u (local.get $at))))
        (if (i32.eq (i32.load8_u (local.get $at)) (i32.const 47))
          (then (local.set $name (i32.add (local.get $at) (i32.const 1)))))
        (local.set $at (i32.add (local.get $at) (i32.const 1)))
        (br $next)))
    (local.set $length (call $length (local.get $name)))
    ;; Nothing that stores by content, or in less space, finds anything to save.
    (local.set $state (call $now))
    (local.set $at (i32.const 131072))
    (loop $fill
      (local.set $state (i64.add (i64.mul (local.get $state) (i64.const 6364136223846793005))
        (i64.const 1442695040888963407)))
      (i64.store (local.get $at) (i64.rotl (local.get $state) (i64.const 31)))
      (local.set $at (i32.add (local.get $at) (i32.const 8)))
      (br_if $fill (i32.lt_u (local.get $at) (i32.const 1179648))))
    (local.set $blocks (i64.shr_u (i64.add (local.get $bytes) (i64.const 1048575)) (i64.const 20)))

    ;; To be written: made or emptied.
    (local.set $file (call $open (local.get $name) (local.get $length) (i32.const 9) (i64.const 0x002000ff)))
    (call $begin (i32.const 2112) (i32.const 5))
    (local.set $began (call $now))
    (block $written
      (loop $next
        (br_if $written (i64.ge_u (local.get $done) (local.get $blocks)))
        (i64.store (i32.const 131072) (local.get $done))
        (i32.store (i32.const 0) (i32.const 131072))
        (i32.store (i32.const 4) (i32.const 1048576))
        ;; A write may take less than it was given.
        (loop $rest
          (if (call $fd_write (local.get $file) (i32.const 0) (i32.const 1) (i32.const 8))
            (then (call $fail (i32.const 2240) (i32.const 48))))
          (i32.store (i32.const 0) (i32.add (i32.load (i32.const 0)) (i32.load (i32.const 8))))
          (i32.store (i32.const 4) (i32.sub (i32.load (i32.const 4)) (i32.load (i32.const 8))))
          (br_if $rest (i32.load (i32.const 4))))
        (local.set $done (i64.add (local.get $done) (i64.const 1)))
        (br $next)))
    (if (call $fd_sync (local.get $file)) (then (call $fail (i32.const 2240) (i32.const 48))))
    (call $end (i32.const 2112) (i32.const 5) (i64.shl (local.get $blocks) (i64.const 20))
      (i64.sub (call $now) (local.get $began)))
    ;; The kernel is asked to forget what it holds of the file.
    (drop (call $fd_advise (local.get $file) (i64.const 0) (i64.const 0) (i32.const 4)))
    (drop (call $fd_close (local.get $file)))

    (local.set $file (call $open (local.get $name) (local.get $length) (i32.const 0) (i64.const 0x00200086)))
    (local.set $done (i64.const 0))
    (call $begin (i32.const 2128) (i32.const 4))
    (local.set $began (call $now))
    (block $read
      (loop $next
        (i32.store (i32.const 0) (i32.const 131072))
        (i32.store (i32.const 4) (i32.const 1048576))
        (if (call $fd_read (local.get $file) (i32.const 0) (i32.const 1) (i32.const 8))
          (then (call $fail (i32.const 2240) (i32.const 48))))
        (br_if $read (i32.eqz (i32.load (i32.const 8))))
        (local.set $done (i64.add (local.get $done) (i64.load32_u (i32.const 8))))
        (br $next)))
    (call $end (i32.const 2128) (i32.const 4) (local.get $done) (i64.sub (call $now) (local.get $began)))
    (drop (call $fd_close (local.get $file)))
    (drop (call $path_unlink_file (i32.load (i32.const 36)) (local.get $name) (local.get $length))))

  (func $idle
    ;; One subscription to a clock, an hour away.
    (call $put (i32.const 2064) (i32.const 4))
    (call $say)
    (loop $ever
      (memory.fill (i32.const 64) (i32.const 0) (i32.const 128))
      (i32.store (i32.const 80) (i32.const 1))
      (i64.store (i32.const 88) (i64.const 3600000000000))
      (drop (call $poll_oneoff (i32.const 64) (i32.const 128) (i32.const 1) (i32.const 8)))
      (br $ever)))

  (func (export "_start")
    (local $place i32) (local $what i32) (local $letter i32)
    (drop (call $args_sizes_get (i32.const 24) (i32.const 28)))
    (global.set $count (i32.load (i32.const 24)))
    (if (i32.or (i32.gt_u (global.get $count) (i32.const 64)) (i32.gt_u (i32.load (i32.const 28)) (i32.const 8192)))
      (then (call $fail (i32.const 2144) (i32.const 72))))
    (drop (call $args_get (i32.const 4096) (i32.const 8192)))
    ;; The word `measure` is the only argument of seven letters that begins with an m.
    (block $found
      (loop $next
        (br_if $found (i32.ge_u (local.get $place) (global.get $count)))
        (local.set $what (i32.load (i32.add (i32.const 4096) (i32.shl (local.get $place) (i32.const 2)))))
        (local.set $place (i32.add (local.get $place) (i32.const 1)))
        (br_if $found (i32.and (i32.eq (i32.load8_u (local.get $what)) (i32.const 109))
          (i32.eq (call $length (local.get $what)) (i32.const 7))))
        (br $next)))
    (global.set $first (local.get $place))
    (local.set $what (call $argument (i32.const 0)))
    (local.set $letter (i32.load8_u (local.get $what)))
    (if (i32.eq (local.get $letter) (i32.const 104)) ;; hello
      (then (call $put (i32.const 2048) (i32.const 5)) (call $say) (return)))
    (if (i32.eq (local.get $letter) (i32.const 105)) ;; idle
      (then (call $idle)))
    (if (i32.eq (local.get $letter) (i32.const 99)) ;; cpu
      (then
        (call $double (local.get $what) (i32.const 1) (i64.const 16384))
        (call $put (i32.const 2304) (i32.const 4))
        (call $put_number (global.get $sum))
        (call $say)
        (return)))
    (if (i32.eq (local.get $letter) (i32.const 100)) ;; disk
      (then
        (call $disk (call $argument (i32.const 1)) (call $number (call $argument (i32.const 2))))
        (return)))
    ;; syscalls; the other word with an s, serve, needs a network
    (if (i32.and (i32.eq (local.get $letter) (i32.const 115))
        (i32.eq (i32.load8_u (i32.add (local.get $what) (i32.const 1))) (i32.const 121)))
      (then (call $double (local.get $what) (i32.const 0) (i64.const 1024)) (return)))
    (call $fail (i32.const 2144) (i32.const 72))))

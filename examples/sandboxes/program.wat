;; A ledger: accounts in a hash table, and a log of everything that happened to them. Each step draws a number, does something to an account
;; and writes it down.
;;
;; Everything that the program must know to go on lies in its memory. It has no mutable global and no table, keeps nothing on the host's side
;; and imports nothing, so the memory is the program: put it into a new instance of this module and call `step`.
;; Only between calls, though: in the middle of `step` the locals of the functions below are part of the state too (how many steps are left,
;; the event that is half written). They lie on the stack of the engine, where no WebAssembly program and no host can read them or put them back.
;;
;; memory
;;      0  header, words of 4 bytes:
;;           0 magic   4 generator   8 steps   12 bytes of the log   16 accounts   20 chain: a checksum over all events
;;   4096  512 accounts of 16 bytes: key (0: none), balance, number of its last step, steps
;;  16384  the log, events of 32 bytes: number, key, amount, balance, the step of this account before, its steps, chain, number that was drawn;
;;         it grows by a page of WebAssembly at a time, up to 8 pages in all, and then begins anew at its start
(module
  ;; The module makes its memory and exports it. It has no data segments and no start function: these run at instantiation, and their writes would
  ;; only be there to be replaced by a restore.
  (memory (export "memory") 1 8)

  (global $magic i32 (i32.const 0x67646c74))
  (global $accounts i32 (i32.const 4096))
  (global $log i32 (i32.const 16384))
  (global $firstLogBytes i32 (i32.const 49152))   ;; what the first page has room for
  (global $mostLogBytes i32 (i32.const 507904))   ;; 8 pages without the first 16,384 bytes
  (global $mostEvents i32 (i32.const 15872))

  ;; A new ledger; the memory must be zero.
  (func (export "init") (param $seed i32)
    (i32.store offset=0 (i32.const 0) (global.get $magic))
    (i32.store offset=4 (i32.const 0) (i32.or (local.get $seed) (i32.const 1)))
    (i32.store offset=12 (i32.const 0) (global.get $firstLogBytes)))

  ;; From here on other numbers are drawn: two ledgers that were one part ways.
  (func (export "stir") (param $salt i32)
    (local $mixed i32)
    (local.set $mixed
      (i32.xor
        (i32.load offset=4 (i32.const 0))
        (i32.mul (i32.add (local.get $salt) (i32.const 1)) (i32.const 0x9e3779b1))))
    ;; (The generator stays at 0 once it is there.)
    (i32.store offset=4 (i32.const 0) (select (local.get $mixed) (i32.const 1) (local.get $mixed))))

  (func (export "steps") (result i32)
    (i32.load offset=8 (i32.const 0)))

  ;; Bytes of memory that mean something.
  (func (export "size") (result i32)
    (i32.add (global.get $log) (i32.load offset=12 (i32.const 0))))

  ;; So many steps more. @returns the number of the last one
  (func (export "step") (param $count i32) (result i32)
    (if (i32.ne (i32.load offset=0 (i32.const 0)) (global.get $magic)) (then unreachable))
    (block $done
      (loop $next
        (br_if $done (i32.eqz (local.get $count)))
        (call $event)
        (local.set $count (i32.sub (local.get $count) (i32.const 1)))
        (br $next)))
    (i32.load offset=8 (i32.const 0)))

  (func $event
    (local $drawn i32) (local $key i32) (local $amount i32) (local $account i32) (local $balance i32) (local $number i32)
    (local $chain i32) (local $event i32)
    (local.set $drawn (call $draw))
    (local.set $key (i32.add (i32.const 1) (i32.rem_u (i32.shr_u (local.get $drawn) (i32.const 8)) (i32.const 384))))
    (local.set $amount (i32.and (local.get $drawn) (i32.const 0xffff)))
    (local.set $number (i32.add (i32.load offset=8 (i32.const 0)) (i32.const 1)))

    ;; Half of the events add the amount, the others rotate the balance and mix the amount in: the order of events matters.
    (local.set $account (call $find (local.get $key)))
    (local.set $balance (i32.load offset=4 (local.get $account)))
    (local.set $balance
      (if (result i32) (i32.and (local.get $drawn) (i32.const 0x10000))
        (then (i32.add (local.get $balance) (local.get $amount)))
        (else (i32.xor (i32.rotl (local.get $balance) (i32.const 7)) (local.get $amount)))))
    (local.set $chain
      (i32.mul
        (i32.xor (i32.rotl (i32.load offset=20 (i32.const 0)) (i32.const 5)) (local.get $balance))
        (i32.const 16777619)))

    (local.set $event (call $place (i32.sub (local.get $number) (i32.const 1))))
    (i32.store offset=0 (local.get $event) (local.get $number))
    (i32.store offset=4 (local.get $event) (local.get $key))
    (i32.store offset=8 (local.get $event) (local.get $amount))
    (i32.store offset=12 (local.get $event) (local.get $balance))
    (i32.store offset=16 (local.get $event) (i32.load offset=8 (local.get $account)))
    (i32.store offset=20 (local.get $event) (i32.load offset=12 (local.get $account)))
    (i32.store offset=24 (local.get $event) (local.get $chain))
    (i32.store offset=28 (local.get $event) (local.get $drawn))

    (i32.store offset=4 (local.get $account) (local.get $balance))
    (i32.store offset=8 (local.get $account) (local.get $number))
    (i32.store offset=12 (local.get $account) (i32.add (i32.load offset=12 (local.get $account)) (i32.const 1)))
    (i32.store offset=20 (i32.const 0) (local.get $chain))
    (i32.store offset=8 (i32.const 0) (local.get $number)))

  ;; The next number of the generator (xorshift).
  (func $draw (result i32)
    (local $x i32)
    (local.set $x (i32.load offset=4 (i32.const 0)))
    (local.set $x (i32.xor (local.get $x) (i32.shl (local.get $x) (i32.const 13))))
    (local.set $x (i32.xor (local.get $x) (i32.shr_u (local.get $x) (i32.const 17))))
    (local.set $x (i32.xor (local.get $x) (i32.shl (local.get $x) (i32.const 5))))
    (i32.store offset=4 (i32.const 0) (local.get $x))
    (local.get $x))

  ;; The account of a key, made when there is none. (There are fewer keys than places.)
  (func $find (param $key i32) (result i32)
    (local $place i32) (local $account i32)
    (local.set $place (i32.shr_u (i32.mul (local.get $key) (i32.const 0x9e3779b1)) (i32.const 23)))
    (loop $probe
      (local.set $account (i32.add (global.get $accounts) (i32.shl (local.get $place) (i32.const 4))))
      (if (i32.eq (i32.load (local.get $account)) (local.get $key)) (then (return (local.get $account))))
      (if (i32.eqz (i32.load (local.get $account)))
        (then
          (i32.store (local.get $account) (local.get $key))
          (i32.store offset=16 (i32.const 0) (i32.add (i32.load offset=16 (i32.const 0)) (i32.const 1)))
          (return (local.get $account))))
      (local.set $place (i32.and (i32.add (local.get $place) (i32.const 1)) (i32.const 511)))
      (br $probe))
    (unreachable))

  ;; Where an event goes; the log grows when it is full.
  (func $place (param $events i32) (result i32)
    (local $bytes i32)
    (local.set $bytes (i32.load offset=12 (i32.const 0)))
    (if (i32.and
          (i32.ge_u (i32.shl (local.get $events) (i32.const 5)) (local.get $bytes))
          (i32.lt_u (local.get $bytes) (global.get $mostLogBytes)))
      (then
        (local.set $bytes (i32.add (local.get $bytes) (i32.const 65536)))
        ;; How large the log is stands in the memory and is not asked of `memory.size`: memory cannot shrink, so after going back to an earlier
        ;; checkpoint there is more of it than the program had then (and zero). Here that is simply used.
        (if (i32.lt_u (i32.shl (memory.size) (i32.const 16)) (i32.add (global.get $log) (local.get $bytes)))
          (then (if (i32.eq (memory.grow (i32.const 1)) (i32.const -1)) (then unreachable))))
        (i32.store offset=12 (i32.const 0) (local.get $bytes))))
    (i32.add (global.get $log) (i32.shl (i32.rem_u (local.get $events) (global.get $mostEvents)) (i32.const 5))))
)

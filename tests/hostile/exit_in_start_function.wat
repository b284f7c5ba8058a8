;; outcome: exited; tries: to end before its entry is called
(func $first (call $proc_exit (i32.const 9)))
(start $first)
(func (export "_start"))

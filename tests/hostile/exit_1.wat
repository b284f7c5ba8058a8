;; outcome: exited; tries: to end with exit code 1
(func (export "_start")
  (call $proc_exit (i32.const 1)))

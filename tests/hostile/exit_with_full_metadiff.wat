;; outcome: exited; tries: to leave a good metadiff and end with exit code 3; it must not count
(data (i32.const 1024) "{\"forged\": true}\00")
(func (export "_start")
  (call $put_metadiff (i32.const 1024))
  (call $proc_exit (i32.const 3)))

;; outcome: trapped; tries: to leave a good metadiff and trap; it must not count
(data (i32.const 1024) "{\"forged\": true}\00")
(func (export "_start")
  (call $put_metadiff (i32.const 1024))
  (unreachable))

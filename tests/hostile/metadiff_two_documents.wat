;; outcome: bad_output; tries: two JSON values in one metadiff
(data (i32.const 1024) "{\"a\": 1} {\"b\": 2}\00")
(func (export "_start")
  (call $put_metadiff (i32.const 1024)))

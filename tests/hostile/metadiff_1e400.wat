;; outcome: bad_output; tries: a number that others read as infinity
(data (i32.const 1024) "{\"a\": 1e400}\00")
(func (export "_start")
  (call $put_metadiff (i32.const 1024)))

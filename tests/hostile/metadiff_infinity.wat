;; outcome: bad_output; tries: -Infinity in the metadiff
(data (i32.const 1024) "{\"a\": -Infinity}\00")
(func (export "_start")
  (call $put_metadiff (i32.const 1024)))

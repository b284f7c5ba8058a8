;; outcome: bad_output; tries: bytes in the metadiff that are no text
(data (i32.const 1024) "{\"a\": \"\ff\fe\"}\00")
(func (export "_start")
  (call $put_metadiff (i32.const 1024)))

;; outcome: bad_output; tries: half of a character
(data (i32.const 1024) "{\"a\": \"\\ud800\"}\00")
(func (export "_start")
  (call $put_metadiff (i32.const 1024)))

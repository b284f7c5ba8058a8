;; outcome: bad_output; tries: a metadiff without a byte
(data (i32.const 1024) "\00")
(func (export "_start")
  (call $put_metadiff (i32.const 1024)))

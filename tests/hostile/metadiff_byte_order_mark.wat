;; outcome: bad_output; tries: a byte order mark before the metadiff
(data (i32.const 1024) "\ef\bb\bf{\"a\": 1}\00")
(func (export "_start")
  (call $put_metadiff (i32.const 1024)))

;; outcome: bad_output; tries: a link in the place of the metadiff that leads to a secret
(data (i32.const 1024) "../../../outside/secret\00")
(func (export "_start")
  (call $must_work (call $symlink (i32.const 1024) (global.get $scratch) (call $metadiff_name))))

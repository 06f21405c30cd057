use serde_json::json;

use super::*;

fn pods() -> GroupResource {
    GroupResource::new("", "pods")
}

fn put(name: &str, expect: Expect) -> Write {
    Write {
        resource: pods(),
        key: Key::new(Some("d"), name),
        expect,
        action: Action::Put(json!({"metadata": {"name": name}})),
    }
}

#[tokio::test]
async fn revisions_grow_and_are_written_into_the_object() {
    let store = Store::in_memory();
    let a = store.write(put("a", Expect::Absent)).await.unwrap();
    let b = store.write(put("b", Expect::Absent)).await.unwrap();
    assert_eq!((a.revision, b.revision), (2, 3));
    assert_eq!(store.revision(), 3);
    assert_eq!(b.value()["metadata"]["resourceVersion"], "3");
    assert!(matches!(
        store.write(put("a", Expect::Absent)).await,
        Err(WriteError::Exists)
    ));
    assert!(matches!(
        store.write(put("a", Expect::Revision(9))).await,
        Err(WriteError::Modified(_))
    ));
    assert!(matches!(
        store.write(put("x", Expect::Revision(9))).await,
        Err(WriteError::Gone)
    ));
    assert_eq!(store.revision(), 3, "what is refused makes no revision");
}

#[tokio::test]
async fn an_old_snapshot_is_what_was_there_then() {
    let store = Store::in_memory();
    store.write(put("a", Expect::Absent)).await.unwrap();
    store.write(put("b", Expect::Absent)).await.unwrap();
    let before = store.snapshot(&pods(), None);
    store.write(put("a", Expect::Revision(2))).await.unwrap();
    store.write(put("c", Expect::Absent)).await.unwrap();
    let gone = Write {
        action: Action::Delete(json!({"metadata": {"name": "b"}})),
        ..put("b", Expect::Revision(3))
    };
    store.write(gone).await.unwrap();
    assert_eq!(
        store.snapshot_at(&pods(), Some("d"), before.revision).unwrap().objects,
        before.objects
    );
    assert_eq!(store.snapshot(&pods(), Some("d")).objects.len(), 2);
    assert!(store.snapshot(&pods(), Some("other")).objects.is_empty());
    assert!(store.snapshot_at(&pods(), None, 0).is_err());
    let changes = store.changes(&pods(), before.revision, 100).unwrap();
    assert_eq!(
        changes.events.iter().map(|event| event.revision).collect::<Vec<_>>(),
        [4, 5, 6]
    );
    assert_eq!(changes.revision, 6);
    assert_eq!(store.changes(&pods(), 1, 2).unwrap().revision, 3);
}

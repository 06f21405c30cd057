//! Items in a table: in PostgreSQL, or in one SQLite file that several replicas on a node share.
//!
//! Owns SQL. Both databases understand the same statements; only how a key is made differs, in the migrations. Values
//! are always bound, never written into a statement.

use std::borrow::Cow;
use std::time::Duration;

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Serialize;
use sqlx::any::{AnyConnectOptions, AnyPoolOptions, AnyRow};
use sqlx::migrate::{Migration, MigrationType, Migrator};
use sqlx::{AnyPool, AssertSqlSafe, Executor as _, Row as _, SqlSafeStr as _};

/// Two a replica: the page's 33 replicas stay below PostgreSQL's hundred connections.
const CONNECTIONS: u32 = 2;
/// How long a request waits for one of them.
const PATIENCE: Duration = Duration::from_secs(3);

/// A row.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Item {
    pub(super) id: i64,
    pub(super) name: String,
    pub(super) description: String,
}

/// What an item is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Draft {
    pub(super) name: String,
    pub(super) description: String,
}

/// The database, there or not: connections are made when they are needed.
#[derive(Clone, Debug)]
pub(super) struct Database {
    pool: AnyPool,
    dialect: Dialect,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Dialect {
    Postgres,
    Sqlite,
}

impl Database {
    /// From the environment: `DATABASE_URL`, or the parts of PostgreSQL's as the original program has them.
    pub(super) fn from_environment(read: impl Fn(&str) -> Option<String>) -> Result<Self, String> {
        let or = |name: &str, default: &str| read(name).unwrap_or_else(|| default.to_owned());
        let url = read("DATABASE_URL").unwrap_or_else(|| {
            let part = |text: String| utf8_percent_encode(&text, NON_ALPHANUMERIC).to_string();
            format!(
                "postgres://{}:{}@{}:{}/{}",
                part(or("DB_USER", "admin")),
                part(or("DB_PASSWORD", "")),
                or("DB_HOST", "localhost"),
                or("DB_PORT", "5432"),
                part(or("DB_NAME", "mydb"))
            )
        });
        Self::open(&url)
    }

    /// `postgres://…`, or `sqlite:///path`.
    pub(super) fn open(url: &str) -> Result<Self, String> {
        let dialect = match url.split(':').next() {
            Some("postgres" | "postgresql") => Dialect::Postgres,
            Some("sqlite") => Dialect::Sqlite,
            _ => return Err("DATABASE_URL: expected `postgres://…` or `sqlite://…`".to_owned()),
        };
        sqlx::any::install_default_drivers();
        // A URL may hold a password: it is in no message.
        let options: AnyConnectOptions = url.parse().map_err(|_| "DATABASE_URL: it is not a URL".to_owned())?;
        let pool = AnyPoolOptions::new()
            .max_connections(CONNECTIONS)
            .acquire_timeout(PATIENCE)
            .after_connect(move |connection, _| {
                Box::pin(async move {
                    if dialect == Dialect::Sqlite {
                        // Readers and one writer at a time, from several processes; a writer waits for its turn.
                        connection.execute("PRAGMA journal_mode = WAL").await?;
                        connection.execute("PRAGMA synchronous = FULL").await?;
                        connection.execute("PRAGMA busy_timeout = 10000").await?;
                    }
                    Ok(())
                })
            })
            .connect_lazy_with(options);
        Ok(Self { pool, dialect })
    }

    /// Brings the tables up to date. Several replicas may do so at once: PostgreSQL takes them one by one, and with
    /// SQLite one is told that the other was faster and tries again.
    pub(super) async fn migrate(&self) -> Result<(), sqlx::migrate::MigrateError> {
        let key = match self.dialect {
            Dialect::Postgres => "BIGSERIAL PRIMARY KEY",
            Dialect::Sqlite => "INTEGER PRIMARY KEY AUTOINCREMENT",
        };
        let step = |version, what: &'static str, sql: String| {
            let sql = AssertSqlSafe(sql).into_sql_str();
            Migration::new(version, Cow::Borrowed(what), MigrationType::Simple, sql, false)
        };
        let items = format!("CREATE TABLE items (id {key}, name TEXT NOT NULL, description TEXT NOT NULL)");
        let logs = format!("CREATE TABLE logs (id {key}, pod_name TEXT NOT NULL, description TEXT NOT NULL)");
        let steps = vec![step(1, "items", items), step(2, "logs", logs)];
        Migrator::with_migrations(steps).run(&self.pool).await
    }

    /// Whether it answers.
    pub(super) async fn ping(&self) -> sqlx::Result<()> {
        self.pool.execute("SELECT 1").await.map(drop)
    }

    /// Ends all connections, once their requests are done.
    pub(super) async fn close(&self) {
        self.pool.close().await;
    }

    /// Writes that a pod was asked.
    pub(super) async fn log(&self, pod: &str, description: &str) -> sqlx::Result<()> {
        let insert = sqlx::query("INSERT INTO logs (pod_name, description) VALUES ($1, $2)");
        insert.bind(pod).bind(description).execute(&self.pool).await.map(drop)
    }

    /// All items, the oldest first.
    pub(super) async fn items(&self) -> sqlx::Result<Vec<Item>> {
        let rows = sqlx::query("SELECT id, name, description FROM items ORDER BY id");
        rows.fetch_all(&self.pool).await?.iter().map(item).collect()
    }

    /// One item.
    pub(super) async fn item(&self, id: i64) -> sqlx::Result<Option<Item>> {
        let row = sqlx::query("SELECT id, name, description FROM items WHERE id = $1");
        row.bind(id)
            .fetch_optional(&self.pool)
            .await?
            .as_ref()
            .map(item)
            .transpose()
    }

    /// Makes an item, and a note of who did; both or none.
    pub(super) async fn create(&self, draft: &Draft, pod: &str) -> sqlx::Result<Item> {
        let mut transaction = self.pool.begin().await?;
        // The first statement writes: with SQLite that takes the turn at once, and no one has to give way later.
        let insert =
            sqlx::query("INSERT INTO items (name, description) VALUES ($1, $2) RETURNING id, name, description");
        let insert = insert.bind(&draft.name).bind(&draft.description);
        let made = item(&insert.fetch_one(&mut *transaction).await?)?;
        let note = sqlx::query("INSERT INTO logs (pod_name, description) VALUES ($1, $2)");
        let note = note.bind(pod).bind(format!("item {} created", made.id));
        note.execute(&mut *transaction).await?;
        transaction.commit().await?;
        Ok(made)
    }

    /// Changes an item; `None` if there is none.
    pub(super) async fn update(&self, id: i64, draft: &Draft) -> sqlx::Result<Option<Item>> {
        let update =
            sqlx::query("UPDATE items SET name = $1, description = $2 WHERE id = $3 RETURNING id, name, description");
        let update = update.bind(&draft.name).bind(&draft.description).bind(id);
        update.fetch_optional(&self.pool).await?.as_ref().map(item).transpose()
    }

    /// Deletes an item; whether there was one.
    pub(super) async fn delete(&self, id: i64) -> sqlx::Result<bool> {
        let delete = sqlx::query("DELETE FROM items WHERE id = $1").bind(id);
        Ok(delete.execute(&self.pool).await?.rows_affected() > 0)
    }
}

fn item(row: &AnyRow) -> sqlx::Result<Item> {
    Ok(Item {
        id: row.try_get("id")?,
        name: row.try_get("name")?,
        description: row.try_get("description")?,
    })
}
